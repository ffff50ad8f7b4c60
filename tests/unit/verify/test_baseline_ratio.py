"""The ratio between two days, each against the same reference: Welch's interval, widened by what a day does."""

import numpy as np
import pytest
from scipy import stats

from edgeft.core.errors import UsageError
from edgeft.verify.latency import DAY_DRIFT, MIN_ROUNDS, look_tail, ratio_to_baseline, round_logs

WELCH_DIGITS = 1e-9
"""Quantiles are bisected to the last bit; what is left is rounding in sums of at most 40 logs."""


@pytest.mark.parametrize(
    ("rounds", "spreads"),
    [((3, 3), (0.01, 0.01)), ((15, 9), (0.05, 0.01)), ((15, 40), (0.02, 0.09)), ((15, 15), (0.2, 1e-4))],
)
def test_the_interval_is_welchs_and_the_drift_of_a_day(rounds: tuple[int, int], spreads: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    then, now = (rng.normal(0.3, spread, n) for n, spread in zip(rounds, spreads, strict=True))
    welch = stats.ttest_ind(now, then, equal_var=False).confidence_interval(1 - 2 * look_tail(1, 1))
    found = ratio_to_baseline(then, now)
    assert found.value == pytest.approx(np.exp(now.mean() - then.mean()), rel=WELCH_DIGITS)
    assert np.log(found.low) == pytest.approx(welch.low - DAY_DRIFT, abs=WELCH_DIGITS)
    assert np.log(found.high) == pytest.approx(welch.high + DAY_DRIFT, abs=WELCH_DIGITS)
    assert found.rounds == rounds[1]


def test_one_day_without_noise_leaves_the_others_interval() -> None:
    now = np.random.default_rng(1).normal(0.1, 0.03, 9)
    low, high = stats.t.interval(1 - 2 * look_tail(1, 1), 8, loc=now.mean(), scale=stats.sem(now))
    found = ratio_to_baseline(np.zeros(15), now)
    assert np.log([found.low, found.high]) == pytest.approx([low - DAY_DRIFT, high + DAY_DRIFT], abs=WELCH_DIGITS)


def test_two_days_without_noise_still_differ_by_what_a_day_does() -> None:
    found = ratio_to_baseline(np.full(15, 0.25), np.full(9, 0.25))
    assert (found.low, found.value, found.high) == (np.exp(-DAY_DRIFT), 1.0, np.exp(DAY_DRIFT))


@pytest.mark.parametrize(("then", "now"), [(2, 9), (9, 2), (0, 0)])
def test_too_few_rounds_of_a_day_are_refused(then: int, now: int) -> None:
    with pytest.raises(UsageError, match=f"{then} rounds then and {now} now: {MIN_ROUNDS} are needed"):
        ratio_to_baseline(np.zeros(then), np.zeros(now))


def test_a_machine_that_is_slower_for_both_changes_no_round() -> None:
    rng = np.random.default_rng(2)
    base, new = np.exp(rng.normal(0, 0.1, (9, 2))), np.exp(rng.normal(1, 0.1, (9, 2)))
    expected = [np.log(new[i] / base[i]).sum() / 2 for i in range(9)]
    # ten roundings of numbers about 1
    np.testing.assert_allclose(round_logs(base, new), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(round_logs(1.7 * base, 1.7 * new), expected, rtol=0, atol=1e-14)
