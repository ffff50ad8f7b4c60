"""From measurements to gates, and from gates to the build's status and exit code."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from edgeft.core.record import Gate, Verdict
from edgeft.recipe.model import LatencyBar

ACCURACY_EXIT, LATENCY_EXIT, INCONCLUSIVE_EXIT = 5, 6, 7
NOT_SLOWER = 1.05
"""Largest ratio that still counts as not slower."""
FASTER = 1.0
"""Ratio below which the new model is faster."""


def max_ratio(bar: LatencyBar) -> float:
    """Return the ratio new / fp32 that the interval must stay below."""
    return FASTER if bar.vs_fp32 == "faster" else NOT_SLOWER


def gate_from_json(values: Mapping[str, Any]) -> Gate:
    """Read a gate from a stage's JSON."""
    interval = values["interval"]
    pair = None if interval is None else cast("tuple[float, float]", tuple(interval))
    return Gate(**{**values, "verdict": Verdict(values["verdict"]), "interval": pair})


def latency_gates(bar: LatencyBar, compared: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Return the latency gates that the recipe asks for.

    Args:
        bar: what the recipe asks.
        compared: an `edgeft.runtime.abba.LatencyComparison` as JSON.
    """
    gates = []
    if bar.vs_fp32 is not None:
        gates.append(_against_fp32(bar, compared))
    if bar.p99_ms is not None:
        gates.append(_deadline(bar.p99_ms, compared["new"]))
    return tuple(gates)


def status(gates: Iterable[Gate], *, strict: bool) -> tuple[str, int]:
    """Return ("passed" | "failed" | "inconclusive", exit code); accuracy speaks before latency.

    Args:
        gates: all gates.
        strict: whether a gate that cannot decide fails the build.
    """
    listed = tuple(gates)
    failed = [gate.exit_code for gate in listed if gate.verdict is Verdict.FAIL]
    if failed:
        return "failed", min(failed)
    if any(gate.verdict is Verdict.INCONCLUSIVE for gate in listed):
        return "inconclusive", INCONCLUSIVE_EXIT if strict else 0
    return "passed", 0


def _against_fp32(bar: LatencyBar, compared: Mapping[str, Any]) -> Gate:
    low, high = compared["interval"]
    ratio, limit = compared["ratio"], max_ratio(bar)
    verdict = Verdict(compared["verdict"])
    words = {
        Verdict.PASS: f"runs at {1 / ratio:.2f}x the speed of fp32",
        Verdict.FAIL: f"takes {ratio:.2f} times as long as fp32; see which operators stay in float in the report",
        Verdict.INCONCLUSIVE: "this machine is too noisy to tell: close other programs, or raise verify.latency.rounds",
    }
    return Gate(
        name="latency vs_fp32",
        verdict=verdict,
        value=ratio,
        interval=(low, high),
        limit=limit,
        unit="ratio",
        n=compared["rounds"],
        detail=words[verdict],
        exit_code=LATENCY_EXIT,
    )


def _deadline(limit_ms: float, arm: Mapping[str, Any]) -> Gate:
    samples = sum(map(len, arm["rounds_ms"]))
    p99 = arm["p99"]
    if p99 is None:
        return Gate(
            name="latency p99",
            verdict=Verdict.INCONCLUSIVE,
            value=arm["median_ms"],
            interval=None,
            limit=limit_ms,
            unit="ms",
            n=samples,
            detail=f"{samples} samples are too few for a p99; the value is the median. Raise verify.latency.rounds",
            exit_code=LATENCY_EXIT,
        )
    value, low, high = p99["value_ms"], p99["low_ms"], p99["high_ms"]
    verdict = Verdict.PASS if high <= limit_ms else Verdict.FAIL if low > limit_ms else Verdict.INCONCLUSIVE
    return Gate(
        name="latency p99",
        verdict=verdict,
        value=value,
        interval=(low, high),
        limit=limit_ms,
        unit="ms",
        n=samples,
        detail=f"{arm['median_ms']:.2f} ms median, {value:.2f} ms p99",
        exit_code=LATENCY_EXIT,
    )
