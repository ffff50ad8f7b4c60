import numpy as np
import pytest
from scipy import stats

from edgeft.core.errors import DataError
from edgeft.verify.inspection import inspection, rate

MATRIX = [[50, 3, 1], [2, 17, 4], [0, 5, 30]]
"""Rows truth: good, scratch, dent."""


def test_rates_are_those_of_the_line() -> None:
    found = inspection(MATRIX, 0)
    assert (found.escape.count, found.escape.n) == (2, 58)
    assert (found.overkill.count, found.overkill.n) == (4, 54)
    assert {index: (each.count, each.n) for index, each in found.by_class.items()} == {1: (2, 23), 2: (0, 35)}


def test_intervals_are_scipys_exact_ones() -> None:
    found = inspection(MATRIX, 0)
    for each in (found.escape, found.overkill, *found.by_class.values()):
        expected = stats.binomtest(each.count, each.n).proportion_ci(0.90, "exact")
        assert (each.low, each.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("n", "at_most"), [(30, 0.095), (59, 0.05), (299, 0.01), (2995, 0.001)])
def test_no_escape_proves_little(n: int, at_most: float) -> None:
    found = rate(0, n)
    assert found.low == 0
    assert found.high == pytest.approx(1 - 0.05 ** (1 / n))
    assert found.high == pytest.approx(at_most, rel=0.02)


def test_of_nothing_nothing_is_known() -> None:
    found = rate(0, 0)
    assert (found.share, found.low, found.high) == (None, 0.0, 1.0)


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="class index 3 of good parts: there are 3 classes"):
        inspection(np.asarray(MATRIX), 3)
