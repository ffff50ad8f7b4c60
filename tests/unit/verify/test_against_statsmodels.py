"""Intervals against an independent implementation, to 1e-9."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from edgeft.verify.distributions import clopper_pearson, wilson
from edgeft.verify.latency import DAY_DRIFT, look_tail, ratio, ratio_to_baseline
from edgeft.verify.paired import tango_interval

COUNTS = [(0, 1), (0, 30), (1, 30), (7, 30), (15, 30), (30, 30), (3, 2995), (1200, 2995)]
ALPHA = 2 * look_tail(1, 1)
"""Two-sided error of a last look."""


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_rates(k: int, n: int, confidence: float) -> None:
    exact = proportion_confint(k, n, alpha=1 - confidence, method="beta")
    assert clopper_pearson(k, n, confidence) == pytest.approx(exact, abs=1e-9)
    assert wilson(k, n, confidence) == pytest.approx(
        proportion_confint(k, n, alpha=1 - confidence, method="wilson"), abs=1e-9
    )


@pytest.mark.parametrize("rounds", [3, 9, 40])
def test_the_ratio_of_paired_rounds(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    base, new = (np.exp(rng.normal(shift, 0.02, (rounds, 2))) for shift in (2.0, 2.05))
    low, high = DescrStatsW((np.log(new) - np.log(base)).mean(axis=1)).tconfint_mean(alpha=ALPHA)
    found = ratio(base, new)
    assert np.log([found.low, found.high]) == pytest.approx([low, high], abs=1e-9)


@pytest.mark.parametrize(("then", "now"), [(15, 9), (15, 40), (3, 25)])
def test_the_ratio_to_a_baseline(then: int, now: int) -> None:
    rng = np.random.default_rng(then + now)
    old, new = rng.normal(0.7, 0.01, then), rng.normal(0.75, 0.03, now)
    welch = CompareMeans(DescrStatsW(new), DescrStatsW(old)).tconfint_diff(alpha=ALPHA, usevar="unequal")
    found = ratio_to_baseline(old, new)
    assert np.log([found.low, found.high]) == pytest.approx([welch[0] - DAY_DRIFT, welch[1] + DAY_DRIFT], abs=1e-9)


@pytest.mark.parametrize(("lost", "gained", "n"), [(9, 2, 200), (30, 12, 400), (1, 14, 100), (5, 5, 50)])
def test_a_paired_score_interval_excludes_zero_where_mcnemars_test_rejects(lost: int, gained: int, n: int) -> None:
    """At a difference of 0 Tango's score test is McNemar's without a correction."""
    agreed = n - lost - gained
    p = mcnemar([[agreed, lost], [gained, 0]], exact=False, correction=False).pvalue
    for confidence in (1 - p * 0.999, 1 - p * 1.001):
        if 0 < confidence < 1:
            low, high = tango_interval(lost, gained, n, confidence=confidence)
            assert (low <= 0 <= high) == (confidence > 1 - p)
