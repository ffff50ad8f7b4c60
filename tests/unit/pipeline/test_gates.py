"""Gates: which verdict, which exit code."""

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeft.core.record import Gate, Verdict
from edgeft.core.stage import Context
from edgeft.pipeline import timed
from edgeft.pipeline.gates import deadline, gate_from_json, max_ratio, status
from edgeft.pipeline.latency import measure
from edgeft.pipeline.stage_configs import VerifyConfig
from edgeft.pipeline.verification import distillation
from edgeft.recipe.model import LatencyBar
from edgeft.runtime import abba

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


def test_a_budget_is_a_deadline_of_the_median() -> None:
    arm = {"median_ms": 5.1, "samples": 400, "p50": {"value_ms": 5.1, "low_ms": 5.0, "high_ms": 5.2}, "p99": None}
    gate = deadline(4.9, arm, "p50")
    assert (gate.name, gate.verdict, gate.value) == ("latency p50", Verdict.FAIL, 5.1)
    assert deadline(5.2, arm, "p50").verdict is Verdict.PASS


@pytest.mark.parametrize(("margin", "verdict"), [(3.0, Verdict.PASS), (2.0, Verdict.INCONCLUSIVE), (0.3, Verdict.FAIL)])
def test_a_margin_from_the_teacher_is_a_gate_of_accuracy(margin: float, verdict: Verdict) -> None:
    labels = np.zeros(400, dtype=np.int64)
    scores = np.tile(np.float32([0.9, 0.1]), (400, 1))
    worse = scores.copy()
    worse[:6] = [0.2, 0.8]
    held: Any = SimpleNamespace(split=SimpleNamespace(labels=labels, data=SimpleNamespace(classes=("a", "b"))))
    config = VerifyConfig(max_drop_from_teacher_pp=margin)
    drop = distillation._drop(Context(Path(), Path(), 0, 1), config, held, scores, worse)
    assert drop["value_pp"] == pytest.approx(1.5)
    assert drop["changed"] == 6
    gate = distillation.teacher_gate(drop, 400)
    assert gate is not None
    assert (gate.verdict, gate.limit, gate.exit_code) == (verdict, margin, 5)
    open_ = distillation._drop(Context(Path(), Path(), 0, 1), VerifyConfig(), held, scores, worse)
    assert open_["interval_pp"] == drop["interval_pp"]
    assert distillation.teacher_gate(open_, 400) is None


def test_too_few_samples_for_a_p99_are_inconclusive() -> None:
    gate = deadline(1.0, {"median_ms": 20.0, "samples": 90, "p99": None})
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert "90 samples are too few" in gate.detail


def test_faster_means_below_one() -> None:
    assert max_ratio(LatencyBar(vs_fp32="faster")) == 1.0
    assert max_ratio(LatencyBar(vs_fp32="not_slower")) == 1.05


def test_what_ships_is_held_to_the_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arm = {"median_ms": 5.1, "samples": 400, "p50": {"value_ms": 5.1, "low_ms": 5.0, "high_ms": 5.2}, "p99": None}
    told = {"new": arm, "ratio": 0.5, "interval": [0.4, 0.6], "rounds": 9, "noise_floor": 0.01}
    compared = SimpleNamespace(to_json=lambda: told, gate=lambda: PASSED)
    fed = SimpleNamespace(model_alone=lambda request: request, end_to_end=lambda _: None)
    monkeypatch.setattr(abba, "compare_requests", lambda *_, **__: compared)
    monkeypatch.setattr(timed, "timed", lambda *_: fed)
    place: Any = SimpleNamespace(launching=lambda _: nullcontext(None))
    files = dict.fromkeys(("fp32", "lowered", "data", "folder"), tmp_path)

    def gates(budget: float | None) -> list[str]:
        found = measure(LatencyBar(), **files, images=None, emit=lambda _: None, place=place, budget_ms=budget)[1]
        return [f"{gate.name} {gate.verdict}" for gate in found]

    assert gates(4.0) == ["accuracy PASS", "latency p50 FAIL"]
    assert gates(None) == ["accuracy PASS"]
