import math

import numpy as np
import pytest

from edgeft.core.errors import DataError
from edgeft.parity.distance import LOWEST_DB, Distance, Sums
from edgeft.verify.numerics import cosine, sqnr_db


def distance(*batches: tuple[np.ndarray, np.ndarray]) -> Distance:
    sums = Sums()
    for x, y in batches:
        sums.add_(x, y)
    return sums.distance()


def test_sums_over_batches_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 1, (6, 5, 40)).astype(np.float32)
    y = (x + rng.normal(0, 0.1, x.shape)).astype(np.float32)
    found = distance(*zip(x, y, strict=True))
    assert found.sqnr_db == pytest.approx(sqnr_db(x, y), abs=1e-4)
    assert found.cosine == pytest.approx(cosine(x, y), abs=1e-6)
    assert found.p99_abs == pytest.approx(np.quantile(np.abs(y - x), 0.99), rel=0.02)


def test_the_affine_fit_is_least_squares() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(1, 2, 500).astype(np.float32)
    y = (1.5 * x - 0.25 + rng.normal(0, 0.2, 500)).astype(np.float32)
    gain, offset = np.polyfit(x.astype(float), y.astype(float), 1)
    found = distance((x, y))
    assert (found.gain, found.offset) == pytest.approx((gain, offset), abs=1e-4)
    left = np.square(y - (gain * x + offset)).sum() / np.square(y - x).sum()
    assert found.affine_share == pytest.approx(1 - left, abs=1e-4)


def test_equal_tensors_are_infinitely_near() -> None:
    x = np.arange(6, dtype=np.float32)
    assert distance((x, x)) == Distance(math.inf, 1.0, 0.0, 1.0, 0.0, 0.0, 0)


def test_noise_on_nothing_is_as_far_as_it_gets() -> None:
    found = distance((np.zeros(4, np.float32), np.ones(4, np.float32)))
    assert (found.sqnr_db, found.offset, found.affine_share) == (LOWEST_DB, 1.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_left_out(bad: float) -> None:
    good = np.ones(3, np.float32)
    found = distance((good, good), (good, np.array([1, bad, bad], np.float32)))
    assert (found.nonfinite, found.sqnr_db, found.cosine) == (2, LOWEST_DB, 1.0)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[3\].*\[4\]"):
        distance((np.ones(3, np.float32), np.ones(4, np.float32)))


def test_a_base_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="the base graph itself gives NaN or infinity"):
        distance((np.array([1, np.nan], np.float32), np.ones(2, np.float32)))


def test_large_values_do_not_overflow() -> None:
    x = np.array([1e25, -3e25], np.float32)
    found = distance((x, np.float32(1.1) * x))
    assert found.sqnr_db == pytest.approx(20, abs=0.01)
    assert found.gain == pytest.approx(1.1, abs=1e-5)
