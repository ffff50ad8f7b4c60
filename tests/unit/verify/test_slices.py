import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from edgeft.verify.slices import accuracy_gap, newcombe


@pytest.mark.parametrize(("k1", "n1", "k2", "n2"), [(9, 10, 3, 10), (56, 70, 48, 80), (10, 10, 0, 20), (5, 7, 5, 7)])
def test_the_interval_is_newcombes(k1: int, n1: int, k2: int, n2: int) -> None:
    expected = confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff", alpha=0.1)
    assert newcombe(k1, n1, k2, n2) == pytest.approx(expected, abs=1e-9)


def test_newcombes_own_example() -> None:
    assert newcombe(56, 70, 48, 80, confidence=0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_gap_is_between_the_best_and_the_worst() -> None:
    right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5 + [True] * 7 + [False] * 3)
    names = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    gap = accuracy_gap(right, names)
    assert gap is not None
    assert (gap.best, gap.worst) == ("a", "b")
    assert gap.value == pytest.approx(0.4)
    assert (gap.low, gap.high) == newcombe(9, 10, 5, 10, confidence=1 - 0.1 / 3)


def test_one_slice_has_no_gap_and_equal_ones_have_none() -> None:
    assert accuracy_gap(np.ones(3, bool), ["a"] * 3) is None
    gap = accuracy_gap(np.ones(4, bool), ["a", "b", "a", "b"])
    assert gap is not None
    assert (gap.best, gap.worst, gap.value) == ("a", "b", 0.0)


def test_the_interval_covers_though_the_pair_is_picked_by_looking() -> None:
    rng, covered, names = np.random.default_rng(1), 0, np.repeat(list("abcd"), 60)
    for _ in range(600):
        gap = accuracy_gap(rng.random(240) < 0.85, names.tolist())
        assert gap is not None
        covered += gap.low <= 0 <= gap.high
    assert covered / 600 >= 0.89
