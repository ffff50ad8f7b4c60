"""Latency statistics on simulated machines: no clock is read here."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgeft.core.errors import UsageError
from edgeft.core.record import Verdict
from edgeft.verify.latency import LOOKS, look_tail, min_samples, noise_floor, quantile, ratio
from edgeft.verify.verdicts import below

Runs = npt.NDArray[np.float64]


def machine(rng: np.random.Generator, rounds: int, change: float, *, drift: float = 0.03, offset: float = 0.01) -> Runs:
    """Medians [rounds, 4] in ABBA order: 3 % drift over the whole session, 1 % offset per process."""
    log = rng.normal(0, offset, (rounds, 4)) + np.linspace(0, drift, rounds * 4).reshape(rounds, 4)
    log[:, 1:3] += np.log(change)
    return 12.0 * np.exp(log)


def verdict(runs: Runs, limit: float, looks: tuple[int, ...] = LOOKS) -> Verdict:
    for look in looks:
        found = ratio(runs[:look, [0, 3]], runs[:look, [1, 2]], look_tail(look, looks[-1]))
        decided = below(found.low, found.high, limit)
        if decided is not Verdict.INCONCLUSIVE:
            return decided
    return Verdict.INCONCLUSIVE


def share(change: float, limit: float, wanted: Verdict, *, offset: float = 0.01, runs: int = 1500) -> float:
    rng = np.random.default_rng(0)
    return float(
        np.mean([verdict(machine(rng, LOOKS[-1], change, offset=offset), limit) is wanted for _ in range(runs)])
    )


def test_an_unchanged_model_never_fails_a_five_percent_bar() -> None:
    assert share(1.0, 1.05, Verdict.FAIL) == 0.0


def test_four_looks_keep_the_error_of_one() -> None:
    """At a true ratio of exactly the limit, 5 % may pass and 5 % may fail; Monte Carlo error 0.6 %."""
    assert share(1.0, 1.0, Verdict.PASS) <= 0.065
    assert share(1.0, 1.0, Verdict.FAIL) <= 0.065


def test_one_noisy_process_per_arm_raises_no_false_alarm() -> None:
    assert share(1.0, 1.05, Verdict.FAIL, offset=0.05) <= 0.005


def test_power_on_quiet_and_noisy_machines() -> None:
    rng = np.random.default_rng(1)
    nine = [verdict(machine(rng, 9, 1.10), 1.05, (9,)) is Verdict.FAIL for _ in range(300)]
    assert np.mean(nine) >= 0.99  # a quiet machine catches +10 % with 9 rounds
    assert share(0.7, 1.0, Verdict.PASS, offset=0.08, runs=300) == 1.0


def test_drift_cancels_within_a_round() -> None:
    runs = machine(np.random.default_rng(2), 9, 1.0, drift=2.0, offset=0.0)
    found = ratio(runs[:, [0, 3]], runs[:, [1, 2]])
    assert found.value == pytest.approx(1.0, abs=1e-12)


def test_ratio_interval_is_students() -> None:
    rng = np.random.default_rng(3)
    base, new = np.exp(rng.normal(0, 0.05, (9, 2))), 0.7 * np.exp(rng.normal(0, 0.05, (9, 2)))
    d = np.log(new).mean(axis=1) - np.log(base).mean(axis=1)
    low, high = stats.t.interval(1 - 2 * look_tail(1, 1), 8, loc=d.mean(), scale=stats.sem(d))
    found = ratio(base, new)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    assert found.rounds == 9


def test_noise_floor_is_what_the_ratio_of_equal_models_cannot_see() -> None:
    rng = np.random.default_rng(4)
    floors, halves = [], []
    for _ in range(300):
        runs = machine(rng, 15, 1.0, drift=0.0)
        floors.append(noise_floor(runs[:, [0, 3]]))
        found = ratio(runs[:, [0, 3]], runs[:, [1, 2]])
        halves.append(np.sqrt(found.high / found.low) - 1)
    assert np.mean(floors) == pytest.approx(np.mean(halves), rel=0.05)


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="3 rounds are needed"):
        ratio(np.ones((2, 2)), np.ones((2, 2)))


def test_samples_a_quantile_needs() -> None:
    assert [min_samples(q) for q in (0.5, 0.9, 0.99, 0.999)] == [5, 29, 299, 2995]  # rules/verification.md
    with pytest.raises(UsageError):
        min_samples(1.0)


def test_no_p99_below_299_samples() -> None:
    assert quantile(list(range(298)), 0.99) is None
    assert quantile(list(range(299)), 0.99) is not None


def test_order_statistic_interval_covers_the_quantile() -> None:
    rng = np.random.default_rng(5)
    for q, n in [(0.5, 30), (0.9, 60), (0.99, 400)]:
        true = stats.lognorm.ppf(q, 0.5)
        low_misses = high_misses = 0
        for _ in range(1000):
            found = quantile(rng.lognormal(0, 0.5, n).tolist(), q)
            assert found is not None
            low_misses += found.low_ms > true
            high_misses += found.high_ms < true
        assert low_misses / 1000 <= 0.065
        assert high_misses / 1000 <= 0.065


def test_quantile_is_a_sample_and_ignores_order() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 100.0]
    found = quantile(values, 0.5)
    assert found is not None
    assert (found.value_ms, found.low_ms, found.high_ms) == (3.0, 1.0, 100.0)
