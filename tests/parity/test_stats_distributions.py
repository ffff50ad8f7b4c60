"""Quantiles and intervals against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from edgeft.verify.distributions import (
    binomial_cdf,
    clopper_pearson,
    incomplete_beta,
    normal_quantile,
    t_quantile,
    wilson,
)
from edgeft.verify.paired import tango_interval


@settings(deadline=None, max_examples=300)
@given(st.floats(0, 1), st.floats(0.05, 1e5), st.floats(0.05, 1e5))
def test_incomplete_beta(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("df", [1, 2, 8, 14, 39, 1000])
@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.9, 0.95, 0.99])
def test_t_quantile(probability: float, df: int) -> None:
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.data())
def test_binomial_and_its_exact_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(k, n, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-12)
    p = data.draw(st.floats(0.001, 0.999))
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 20), (580, 655)])
def test_wilson(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_normal_quantile() -> None:
    assert normal_quantile(0.95) == pytest.approx(stats.norm.ppf(0.95), abs=1e-12)


def test_tango_matches_the_published_example() -> None:
    # Airway hyper-responsiveness before and after transplantation: 1 and 7 discordant of 21, 95 %:
    # -0.517 to -0.026 (Fagerland, Lydersen & Laake, Statistics in Medicine 33, 2014, table of section 4).
    assert tango_interval(1, 7, 21, confidence=0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 1, 40), (0, 2, 30), (12, 12, 100), (9, 0, 655)])
def test_tango_ends_are_where_the_constrained_score_statistic_is_z(lost: int, gained: int, n: int) -> None:
    """The maximum-likelihood estimate under the constraint is found here by a grid, not by its formula."""
    for end in tango_interval(lost, gained, n):
        grid = np.linspace(max(0, -end), min(1, (1 - end) / 2), 2_000_001)[1:-1]
        cells = special.xlogy(lost, grid + end) + special.xlogy(gained, grid)
        rate = grid[np.argmax(cells + special.xlogy(n - lost - gained, 1 - 2 * grid - end))]
        variance = (2 * rate + end - end * end) / n
        z = ((lost - gained) / n - end) / np.sqrt(variance)
        assert abs(z) == pytest.approx(stats.norm.ppf(0.95), abs=2e-3)
