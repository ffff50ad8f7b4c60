"""The comparison's course on simulated processes; no clock is read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeft.core.errors import UsageError
from edgeft.core.events import Event, Message, Progress
from edgeft.core.record import Verdict
from edgeft.runtime.abba import LatencyComparison, compare
from edgeft.runtime.preprocess import InputContract
from edgeft.runtime.worker import Request, Timing

BASE, NEW = Path("base.onnx"), Path("new.onnx")


class Machine:
    """Answers requests: `base_ms` for the base, `new_ms(run)` for the new model, with process noise."""

    def __init__(self, new_ms: Callable[[int], float], noise: float = 0.01) -> None:
        self.requests: list[Request] = []
        self._new_ms, self._noise = new_ms, noise
        self._rng = np.random.default_rng(0)

    def __call__(self, request: Request) -> Timing:
        level = 10.0 if request.model == str(BASE) else self._new_ms(len(self.requests))
        self.requests.append(request)
        level *= float(np.exp(self._rng.normal(0, self._noise)))
        return Timing(50.0, level * 2, (level * np.exp(self._rng.normal(0, 0.02, request.samples))).tolist(), 90, 30)


def run(machine: Machine, **options: object) -> LatencyComparison:
    return compare(BASE, NEW, run=machine, **options)  # type: ignore[arg-type]  # tests pass options by name


def test_a_faster_model_passes_at_the_first_look() -> None:
    machine = Machine(lambda _: 7.0)
    found = run(machine)
    assert found.verdict is Verdict.PASS
    assert found.rounds == 9
    assert found.ratio == pytest.approx(0.7, rel=0.02)
    assert found.interval[0] < 0.7 < found.interval[1] < 1
    order = [Path(request.model) for request in machine.requests]
    assert order == [BASE, NEW, NEW, BASE] * 9


def test_a_slower_model_fails_twice_before_it_fails() -> None:
    machine = Machine(lambda _: 13.0)
    events: list[Event] = []
    found = run(machine, emit=events.append)
    assert found.verdict is Verdict.FAIL
    assert found.confirmed is True
    assert found.rounds == 18
    assert any(isinstance(event, Message) and event.warning for event in events)
    assert [event.done for event in events if isinstance(event, Progress)] == list(range(1, 19))
    assert found.gate().exit_code == 6


def test_a_fail_that_does_not_come_back_is_inconclusive() -> None:
    machine = Machine(lambda run: 13.0 if run < 36 else 7.0)
    found = run(machine)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.confirmed is False
    assert "a second did not" in found.gate().detail


def test_an_unclear_answer_adds_rounds_and_says_so() -> None:
    found = run(Machine(lambda run: 11.0 if run // 4 % 2 else 9.0, noise=0.001), rounds=(3, 4, 6))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.rounds == 6
    assert "too noisy to tell" in found.gate().detail


def test_a_limit_above_one_asks_for_not_slower() -> None:
    found = run(Machine(lambda _: 10.0), max_ratio=1.05)
    assert (found.verdict, found.rounds) == (Verdict.PASS, 9)
    assert found.gate().limit == 1.05


def test_every_sample_is_kept_and_p99_needs_299() -> None:
    few = run(Machine(lambda _: 7.0), samples_per_round=10)
    assert few.new.samples == 180
    assert few.new.p99 is None
    assert few.new.p90 is not None
    many = run(Machine(lambda _: 7.0), samples_per_round=20)
    assert many.new.p99 is not None
    assert many.new.p99.low_ms <= many.new.p99.value_ms <= many.new.p99.high_ms
    assert [len(row) for row in many.new.rounds_ms] == [20] * 18


def test_end_to_end_is_timed_apart() -> None:
    contract = InputContract(16, 16, "squash", None, "bilinear", (127.0,) * 3, (128.0,) * 3)
    machine = Machine(lambda _: 7.0)
    found = run(machine, images=[Path("a.png"), Path("b.png")], contract=contract)
    assert [request.images for request in machine.requests[36:]] == [("a.png", "b.png")] * 6
    assert all(request.contract == contract.to_json() for request in machine.requests[36:])
    assert len(found.new.end_to_end_ms) == 3
    assert found.new.end_to_end_p50 is not None
    assert run(Machine(lambda _: 7.0)).new.end_to_end_p50 is None


def test_facts_of_the_claim_are_stated() -> None:
    found = run(Machine(lambda _: 7.0), threads=2, inputs=Path("x/golden.npz")).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["threads"], found["spinning"], found["inputs"]) == (2, False, "golden.npz")
    assert run(Machine(lambda _: 7.0)).inputs == "seeded noise"
    assert found["base"]["peak_rss_bytes"] == 90
    assert found["noise_floor"] > 0
    assert found["verdict"] == "PASS"


@pytest.mark.parametrize("rounds", [(), (9, 9), (15, 9), (2,)])
def test_impossible_rounds_are_refused(rounds: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="latency rounds"):
        run(Machine(lambda _: 7.0), rounds=rounds)
