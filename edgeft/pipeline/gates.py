"""From measurements to gates, and from gates to the build's status and exit code."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from edgeft.core.record import Gate, Verdict
from edgeft.recipe.model import LatencyBar
from edgeft.verify.verdicts import at_most

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


def deadline(limit_ms: float, arm: Mapping[str, Any], quantile: str = "p99") -> Gate:
    """Return the gate on a quantile of latency: PASS where all of its interval is within the limit.

    Args:
        limit_ms: the recipe's limit.
        arm: an `edgeft.runtime.abba.ArmLatency` as JSON.
        quantile: p99, or p50 for a student's budget.
    """
    samples, found, name = arm["samples"], arm[quantile], f"latency {quantile}"
    if found is None:
        return Gate(
            name=name,
            verdict=Verdict.INCONCLUSIVE,
            value=arm["median_ms"],
            interval=None,
            limit=limit_ms,
            unit="ms",
            n=samples,
            detail=f"{samples} samples are too few for a {quantile}; the value is the median. "
            "Raise verify.latency.rounds",
            exit_code=LATENCY_EXIT,
        )
    value, low, high = found["value_ms"], found["low_ms"], found["high_ms"]
    return Gate(
        name=name,
        verdict=at_most(low, high, limit_ms),
        value=value,
        interval=(low, high),
        limit=limit_ms,
        unit="ms",
        n=samples,
        detail=f"{arm['median_ms']:.2f} ms median, {value:.2f} ms {quantile}",
        exit_code=LATENCY_EXIT,
    )
