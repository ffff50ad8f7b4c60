"""How often each interval holds the truth, against what it says: exact sums where there are any, else simulation.

Score and bootstrap intervals must be within one point. Exact ones (Clopper-Pearson, order statistics) and those that
guard against what a sample cannot show (few disagreements, a pair picked by looking, what a day does) may cover more
often, never less.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgeft.verify import latency
from edgeft.verify.accuracy import metric_value
from edgeft.verify.distributions import CONFIDENCE, clopper_pearson, wilson
from edgeft.verify.intervals import metric_interval
from edgeft.verify.latency import MIN_ROUNDS, look_tail, min_samples, quantile, ratio, ratio_to_baseline
from edgeft.verify.paired import paired_difference, tango_interval
from edgeft.verify.slices import newcombe

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINT = 0.01
RATES = np.linspace(0.5, 0.97, 41)
PRIOR = (0.5, 0.3, 0.2)
AVERAGED = ("balanced_accuracy", "macro_f1")
IMAGES = 1_500
"""300 in the smallest class."""
RANKED = ("auroc", "average_precision")
QUANTILE_95 = 1 - 2 * look_tail(1, 1)
"""What a latency ratio says of both its ends together."""


def exact(interval: Callable[[int], tuple[float, float]], n: int, rate: float) -> float:
    """Return the coverage of the interval of a rate, summed over all counts."""
    chance = stats.binom.pmf(np.arange(n + 1), n, rate)
    likely = np.flatnonzero(chance > 1e-10)
    ends = np.array([interval(int(k)) for k in likely])
    return float(chance[likely][(ends[:, 0] <= rate) & (rate <= ends[:, 1])].sum())


@pytest.mark.parametrize("n", [100, 655, 2000])
def test_the_score_interval_of_a_rate(n: int) -> None:
    """Its coverage jumps with the rate, as every one of a count must; over rates it is what it says."""
    found = [exact(lambda k: wilson(k, n, 0.95), n, rate) for rate in RATES]
    assert np.mean(found) == pytest.approx(0.95, abs=POINT)
    assert min(found) >= 0.92


@pytest.mark.parametrize("n", [30, 299, 1200])
def test_the_exact_interval_of_a_rate_never_covers_less(n: int) -> None:
    ends = cache(lambda k: clopper_pearson(k, n))
    found = [exact(ends, n, rate) for rate in (*RATES, 0.99, 0.999)]
    assert min(found) >= CONFIDENCE
    if n > 1000:
        assert np.mean(found[: len(RATES)]) == pytest.approx(CONFIDENCE, abs=POINT)


@pytest.mark.parametrize(("n", "q"), [(20, 0.5), (60, 0.9), (300, 0.5), (300, 0.99), (3000, 0.9), (60_000, 0.99)])
def test_order_statistics_never_cover_less(n: int, q: float) -> None:
    """With K ~ Binomial(n, q) samples below the quantile, the ends at ranks l and u hold it where l <= K < u."""
    found = quantile(list(range(1, n + 1)), q)
    assert found is not None
    assert n >= min_samples(q)
    below = stats.binom(n, q)
    covered = below.cdf(found.high_ms - 1) - below.cdf(found.low_ms - 1)
    assert covered >= CONFIDENCE
    if n >= 3000:
        assert covered == pytest.approx(CONFIDENCE, abs=POINT)


@pytest.mark.parametrize("noise", ["normal", "t3", "lognormal", "two clocks"])
@pytest.mark.parametrize("rounds", [9, 40])
def test_ratios_of_latency(noise: str, rounds: int) -> None:
    """Monte Carlo error 0.25 %. d_i is a difference, so one-sided noise leaves it symmetric."""
    rng, truth, covered, runs = np.random.default_rng(7), 1.07, 0, 10_000
    shape = (runs, rounds, 4)
    drawn = {
        "normal": rng.normal(size=shape),
        "t3": rng.standard_t(3, shape),
        "lognormal": rng.lognormal(size=shape),
        "two clocks": 1.0 * (rng.random(shape) < 0.3),
    }
    for log in 0.05 * drawn[noise]:
        found = ratio(np.exp(log[:, [0, 3]]), truth * np.exp(log[:, [1, 2]]))
        covered += found.low <= truth <= found.high
    low, high = (QUANTILE_95 - POINT, QUANTILE_95 + (POINT if noise == "normal" else 2 * POINT))
    assert low <= covered / runs <= high


@pytest.mark.parametrize(("then", "now"), [(15, 9), (15, 40)])
def test_ratios_to_a_baseline_without_what_a_day_does(then: int, now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Monte Carlo error 0.3 %; with `DAY_DRIFT` they cover more."""
    assert min(then, now) >= MIN_ROUNDS
    rng, truth, covered, runs = np.random.default_rng(8), math.log(1.07), 0, 8_000
    monkeypatch.setattr(latency, "DAY_DRIFT", 0.0)
    for _ in range(runs):
        found = ratio_to_baseline(rng.normal(0, 0.05, then), rng.normal(truth, 0.07, now))
        covered += found.low <= math.exp(truth) <= found.high
    assert covered / runs == pytest.approx(QUANTILE_95, abs=POINT)


@pytest.mark.parametrize(
    ("n", "rates"), [((300, 500), (0.92, 0.88)), ((120, 80), (0.7, 0.9)), ((60, 60), (0.85, 0.85))]
)
def test_the_gap_of_two_slices(n: tuple[int, int], rates: tuple[float, float]) -> None:
    """Summed over all counts."""
    counts = [np.flatnonzero(stats.binom.pmf(np.arange(m + 1), m, p) > 1e-7) for m, p in zip(n, rates, strict=True)]
    covered = 0.0
    for k1 in counts[0]:
        ends = np.array([newcombe(int(k1), n[0], int(k2), n[1]) for k2 in counts[1]])
        inside = (ends[:, 0] <= rates[0] - rates[1]) & (rates[0] - rates[1] <= ends[:, 1])
        chance = stats.binom.pmf(counts[1], n[1], rates[1])
        covered += stats.binom.pmf(k1, n[0], rates[0]) * chance[inside].sum()
    assert covered == pytest.approx(CONFIDENCE, abs=POINT)


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(300, 0.06, 0.04), (500, 0.05, 0.05), (655, 0.04, 0.02), (2000, 0.02, 0.02)]
)
def test_the_score_interval_of_a_paired_difference(n: int, lost: float, gained: float) -> None:
    """Monte Carlo error 0.3 %."""
    rng, truth = np.random.default_rng(9), lost - gained
    drawn = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=10_000)
    cells, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    ends = np.array([tango_interval(int(b), int(c), n) for b, c in cells])
    covered = times[(ends[:, 0] <= truth) & (truth <= ends[:, 1])].sum() / len(drawn)
    assert covered == pytest.approx(CONFIDENCE, abs=POINT)


class Machines:
    """A model and its neighbour on three classes: the metrics' truths, and samples of both."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def sample(self, n: int) -> tuple[Ints, Floats, Floats]:
        """Labels [n] in fixed shares, scores [n, 3] of both."""
        labels = np.repeat(np.arange(3), np.round(np.array(PRIOR) * n).astype(int))
        one = self.rng.normal(size=(n, 3)) + 1.8 * np.eye(3)[labels]
        return labels, one, one + 0.4 * self.rng.normal(size=(n, 3))

    def truth(self, metric: str) -> tuple[float, float]:
        labels, one, other = self.sample(400_000)
        return metric_value(metric, labels, one, 3), metric_value(metric, labels, other, 3)


def covered(metric: str, n: int, runs: int, resamples: int) -> tuple[float, float]:
    """How often the intervals of a metric, and of its drop to a neighbour, hold the truth."""
    machines = Machines(10)
    one, other = machines.truth(metric)
    level = drop = 0
    for seed in range(runs):
        labels, first, second = machines.sample(n)
        low, high = metric_interval(metric, labels, first, 3, seed, n_resamples=resamples)
        level += low <= one <= high
        found = paired_difference(metric, labels, first, second, 3, seed, resamples)
        drop += found.low_pp <= 100 * (one - other) <= found.high_pp
    return level / runs, drop / runs


@pytest.mark.parametrize("metric", AVERAGED)
def test_metrics_by_class_and_their_drops(metric: str) -> None:
    """Monte Carlo error at most 0.35 % and 0.5 %."""
    level, drop = covered(metric, IMAGES, 10_000 if metric == "balanced_accuracy" else 4_000, 400)
    assert level == pytest.approx(0.95, abs=POINT)
    assert drop == pytest.approx(CONFIDENCE, abs=POINT)


@pytest.mark.slow
@pytest.mark.parametrize("metric", RANKED)
def test_metrics_of_ranking_and_their_drops(metric: str) -> None:
    """Monte Carlo error 0.5 % and 0.7 %."""
    level, drop = covered(metric, IMAGES, 2_000, 400)
    assert level == pytest.approx(0.95, abs=POINT)
    assert drop == pytest.approx(CONFIDENCE, abs=POINT)


@pytest.mark.parametrize("metric", [*AVERAGED, *RANKED])
def test_a_model_without_an_error_is_not_certain(metric: str) -> None:
    """30 of 30 right in a class leave 12 % of errors possible there."""
    labels = np.repeat([0, 1], 30)
    low, high = metric_interval(metric, labels, np.eye(2)[labels], 2, seed=0)
    assert high == 1
    assert 0.85 < low < 0.95
