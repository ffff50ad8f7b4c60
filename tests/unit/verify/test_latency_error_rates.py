"""How often `edgeft compare` is wrong, by simulation: both rules with their four looks and the second set of rounds.

The rules are written out here once more, over all simulated comparisons at a time; the last tests show that the code
under test decides as they do. No clock is read.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgeft.core.events import Event, Message, ignore
from edgeft.core.record import Verdict
from edgeft.pipeline import compare as pipeline
from edgeft.pipeline.baseline import Baseline
from edgeft.runtime.abba import compare_requests
from edgeft.runtime.worker import Request, Timing
from edgeft.verify.latency import BOUNDARY, DAY_DRIFT, FAIL_BOUNDARY, LOOKS, look_tail, ratio, round_logs

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.str_]

COMPARISONS = 2000
QUIET, SHAKY, NOISY = 0.02, 0.05, 0.08
"""Log noise of a process: tests/unit/verify/test_latency.py calls 0.08 noisy."""
DRIFT = 0.03
LEVEL_MS = 12_000.0
"""Medians are stored in whole 0.1 us: at this level that is no part of the noise."""

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape) / math.sqrt(3),
    "one-sided tail": lambda rng, shape: rng.lognormal(size=shape) / math.sqrt((math.e - 1) * math.e),
    "two clocks": lambda rng, shape: (rng.random(shape) < 0.3) / math.sqrt(0.3 * 0.7),
}
"""Of unit variance. "two clocks": three processes in ten run at the lower one."""


def session(
    rng: np.random.Generator,
    noise: str,
    spread: float,
    change: float,
    *,
    rounds: int = LOOKS[-1],
    day: float = 0.0,
    comparisons: int = COMPARISONS,
) -> Floats:
    """Log medians [comparisons, rounds, 4] in the order A B B A.

    Linear drift, a random walk and process noise; `day` is what the machine adds to both arms.
    """
    shape = (comparisons, rounds * 4)
    log = spread * NOISES[noise](rng, shape) + np.linspace(0, DRIFT, rounds * 4)
    log = (log + np.cumsum(rng.normal(0, 0.002, shape), axis=1) + day).reshape(comparisons, rounds, 4)
    log[:, :, 1:3] += math.log(change)
    return log


def rounds_of(log: Floats) -> Floats:
    """d_i [comparisons, rounds]."""
    return (log[:, :, 1] + log[:, :, 2] - log[:, :, 0] - log[:, :, 3]) / 2


def one_set(
    limit: float, interval: Callable[[int, float], tuple[Floats, Floats]], fail_boundary: float = BOUNDARY
) -> Words:
    """The first clear answer over the looks, by comparison."""
    found = np.full(interval(LOOKS[0], 0.05)[0].shape, Verdict.INCONCLUSIVE.value)
    for look in LOOKS:
        centre, half = interval(look, look_tail(look, LOOKS[-1]))
        answer = np.where(centre + half < math.log(limit), Verdict.PASS, Verdict.INCONCLUSIVE)
        half = interval(look, look_tail(look, LOOKS[-1], fail_boundary))[1]
        answer = np.where(centre - half > math.log(limit), Verdict.FAIL, answer)
        found = np.where(found == Verdict.INCONCLUSIVE, answer, found)
    return found


def twice(first: Words, second: Words) -> Words:
    """A FAIL must come back."""
    return np.where((first == Verdict.FAIL) & (second != Verdict.FAIL), Verdict.INCONCLUSIVE, first)


def by_turns(limit: float, log: Floats) -> Words:
    d = rounds_of(log)

    def student(look: int, tail: float) -> tuple[Floats, Floats]:
        seen = d[:, :look]
        return seen.mean(axis=1), stats.t.ppf(1 - tail, look - 1) * seen.std(axis=1, ddof=1) / math.sqrt(look)

    return one_set(limit, student, FAIL_BOUNDARY)


def by_baseline(limit: float, then: Floats, log: Floats) -> Words:
    before, d = rounds_of(then), rounds_of(log)
    n = before.shape[1]

    def welch(look: int, tail: float) -> tuple[Floats, Floats]:
        seen = d[:, :look]
        old, new = before.var(axis=1, ddof=1) / n, seen.var(axis=1, ddof=1) / look
        freedom = (old + new) ** 2 / (old**2 / (n - 1) + new**2 / (look - 1))
        half = stats.t.ppf(1 - tail, freedom) * np.sqrt(old + new) + DAY_DRIFT
        return seen.mean(axis=1) - before.mean(axis=1), half

    return one_set(limit, welch)


def turns(noise: str, spread: float, change: float, limit: float) -> Words:
    """The verdicts of the whole rule for two bundles."""
    rng = np.random.default_rng(0)
    return twice(*(by_turns(limit, session(rng, noise, spread, change)) for _ in range(2)))


def baseline(noise: str, spread: float, change: float, limit: float, own_drift: float = 0.0) -> Words:
    """The verdicts of the whole rule against baselines from a day on which the machine was 30 % faster.

    `own_drift`: what the day does to the model and not to the reference.
    """
    rng = np.random.default_rng(0)
    then = session(rng, noise, spread, 1.0, rounds=pipeline.BASELINE_ROUNDS)
    now = change * math.exp(own_drift)
    return twice(*(by_baseline(limit, then, session(rng, noise, spread, now, day=math.log(1.3))) for _ in range(2)))


def share(verdicts: Words, wanted: Verdict) -> float:
    return float((verdicts == wanted).mean())


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [QUIET, SHAKY, NOISY])
@pytest.mark.parametrize("limit", [1.0, 1.05])
def test_an_unchanged_model_fails_in_one_percent_at_most(noise: str, spread: float, limit: float) -> None:
    assert share(turns(noise, spread, 1.0, limit), Verdict.FAIL) <= 0.01
    assert share(baseline(noise, spread, 1.0, limit), Verdict.FAIL) <= 0.01


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [QUIET, SHAKY, NOISY])
@pytest.mark.parametrize("own_drift", [DAY_DRIFT, -DAY_DRIFT])
def test_what_a_day_does_to_one_graph_alone_raises_no_alarm(noise: str, spread: float, own_drift: float) -> None:
    assert share(baseline(noise, spread, 1.0, 1.05, own_drift), Verdict.FAIL) <= 0.01


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [QUIET, NOISY])
def test_a_model_at_the_limit_passes_in_five_percent_at_most(noise: str, spread: float) -> None:
    """Against a baseline even where the day speeds the model up as far as is allowed for; Monte Carlo error 0.5 %."""
    assert share(turns(noise, spread, 1.05, 1.05), Verdict.PASS) <= 0.065
    assert share(baseline(noise, spread, 1.05, 1.05, -DAY_DRIFT), Verdict.PASS) <= 0.065


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("spread", "change"), [(QUIET, 1.10), (SHAKY, 1.10), (NOISY, 1.10)])
def test_taking_turns_finds_a_slower_model(noise: str, spread: float, change: float) -> None:
    """Within 40 rounds, and as many again to confirm, under a limit of 5 %."""
    assert share(turns(noise, spread, change, 1.05), Verdict.FAIL) >= 0.95


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("spread", "change"), [(QUIET, 1.10), (SHAKY, 1.15), (NOISY, 1.20)])
def test_a_baseline_finds_a_slower_model(noise: str, spread: float, change: float) -> None:
    """As above; the baseline's own 15 rounds and what a day does ask for more: +10 % on a quiet machine only."""
    assert share(baseline(noise, spread, change, 1.05), Verdict.FAIL) >= 0.95


def test_the_ratios_interval_covers_as_often_as_it_says() -> None:
    """Monte Carlo error 0.2 %."""
    truth, rounds = 1.07, 9
    log = session(np.random.default_rng(3), "normal", SHAKY, truth, rounds=rounds, comparisons=10_000)
    found = [ratio(runs[:, [0, 3]], runs[:, [1, 2]]) for runs in np.exp(log)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered == pytest.approx(1 - 2 * look_tail(1, 1), abs=0.01)


class Replay:
    """Answers requests with simulated medians, in order; goes to the second set when told that it begins."""

    def __init__(self, first: Floats, second: Floats) -> None:
        self._left, self._second = iter(first.ravel()), second

    def __call__(self, request: Request) -> Timing:
        del request
        return Timing(1.0, 1.0, [LEVEL_MS * math.exp(next(self._left))], 1, 1)

    def told(self, event: Event) -> None:
        if isinstance(event, Message):
            self._left = iter(self._second.ravel())


MODEL, OTHER = (Request(name, 1, spinning=False, samples=1, warmup=0, max_seconds=1.0) for name in "ab")
MIXED = (("normal", SHAKY, 1.05), ("two clocks", NOISY, 1.0), ("heavy tails", NOISY, 1.10), ("normal", QUIET, 1.10))
"""Noise, spread and change under which every verdict occurs."""


def test_two_bundles_are_judged_by_this_rule() -> None:
    rng, seen = np.random.default_rng(4), set()
    for noise, spread, change in MIXED:
        first, second = (session(rng, noise, spread, change, comparisons=12) for _ in range(2))
        expected = twice(by_turns(1.05, first), by_turns(1.05, second))
        for index, verdict in enumerate(expected):
            replay = Replay(first[index], second[index])
            found = compare_requests(MODEL, OTHER, max_ratio=1.05, emit=replay.told, run=replay)
            assert found.verdict.value == verdict
            seen.add(verdict)
    assert seen == {verdict.value for verdict in Verdict}


def test_a_baseline_is_judged_by_this_rule() -> None:
    rng, seen = np.random.default_rng(5), set()
    for noise, spread, change in (*MIXED, ("normal", SHAKY, 1.15)):
        then = session(rng, noise, spread, 1.0, rounds=pipeline.BASELINE_ROUNDS, comparisons=12)
        first, second = (session(rng, noise, spread, change, comparisons=12) for _ in range(2))
        expected = twice(by_baseline(1.05, then, first), by_baseline(1.05, then, second))
        for index, verdict in enumerate(expected):
            old = Baseline({}, {}, rounds_of(then)[index], LEVEL_MS, None, None, {})
            replay = Replay(first[index], second[index])
            _, gate = pipeline._against_baseline(old, OTHER, 1.05, pipeline.Options(), replay.told, replay)
            assert gate.verdict.value == verdict
            seen.add(verdict)
    assert seen == {verdict.value for verdict in Verdict}


def test_rounds_against_the_reference_are_what_was_run() -> None:
    log = session(np.random.default_rng(6), "normal", QUIET, 2.0, rounds=4, comparisons=1)[0]
    asked: list[Request] = []
    replay = Replay(log, log)

    def run(request: Request) -> Timing:
        asked.append(request)
        return replay(request)

    logs, median_ms = pipeline.against_reference(OTHER, 4, ignore, run)
    np.testing.assert_allclose(logs, rounds_of(log[None])[0], rtol=0, atol=1e-7)  # medians have 0.1 us of 12 s
    np.testing.assert_allclose(logs, round_logs(np.exp(log[:, [0, 3]]), np.exp(log[:, [1, 2]])), rtol=0, atol=1e-7)
    assert median_ms == pytest.approx(np.median(LEVEL_MS * np.exp(log[:, 1:3])), rel=1e-7)
    names = [Path(request.model).name for request in asked]
    assert names == ["reference.onnx", "b", "b", "reference.onnx"] * 4
