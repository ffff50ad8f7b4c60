"""Gates: which verdict, which exit code."""

from dataclasses import asdict, replace

import pytest

from edgeft.core.record import Gate, Verdict
from edgeft.pipeline.gates import deadline, gate_from_json, max_ratio, status
from edgeft.recipe.model import LatencyBar

PASSED = Gate("accuracy", Verdict.PASS, 0.1, (0.0, 0.5), 2.0, "pp", 100, "fine", 5)
FAILED = replace(PASSED, verdict=Verdict.FAIL)
OPEN = replace(PASSED, verdict=Verdict.INCONCLUSIVE)
SLOW = replace(PASSED, name="latency", verdict=Verdict.FAIL, exit_code=6)


@pytest.mark.parametrize(
    ("gates", "strict", "expected"),
    [
        ([], False, ("passed", 0)),
        ([PASSED], True, ("passed", 0)),
        ([PASSED, FAILED], False, ("failed", 5)),
        ([SLOW, PASSED], False, ("failed", 6)),
        ([SLOW, FAILED], True, ("failed", 5)),
        ([OPEN, SLOW], True, ("failed", 6)),
        ([OPEN, PASSED], False, ("inconclusive", 0)),
        ([OPEN, PASSED], True, ("inconclusive", 7)),
    ],
)
def test_status_and_exit_code(gates: list[Gate], strict: bool, expected: tuple[str, int]) -> None:  # noqa: FBT001 - a table
    assert status(gates, strict=strict) == expected


def test_a_gate_survives_json() -> None:
    assert gate_from_json({**asdict(PASSED), "verdict": "PASS", "interval": [0.0, 0.5]}) == PASSED
    assert gate_from_json({**asdict(PASSED), "interval": None}).interval is None


@pytest.mark.parametrize(
    ("limit", "verdict"), [(30.0, Verdict.PASS), (26.0, Verdict.INCONCLUSIVE), (20.0, Verdict.FAIL)]
)
def test_a_deadline_holds_where_the_whole_interval_does(limit: float, verdict: Verdict) -> None:
    arm = {"median_ms": 20.0, "samples": 400, "p99": {"value_ms": 25.0, "low_ms": 24.0, "high_ms": 27.0}}
    gate = deadline(limit, arm)
    assert (gate.verdict, gate.value, gate.interval, gate.exit_code) == (verdict, 25.0, (24.0, 27.0), 6)


def test_too_few_samples_for_a_p99_are_inconclusive() -> None:
    gate = deadline(1.0, {"median_ms": 20.0, "samples": 90, "p99": None})
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert "90 samples are too few" in gate.detail


def test_faster_means_below_one() -> None:
    assert max_ratio(LatencyBar(vs_fp32="faster")) == 1.0
    assert max_ratio(LatencyBar(vs_fp32="not_slower")) == 1.05
