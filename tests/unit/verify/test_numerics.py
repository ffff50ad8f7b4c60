import math

import numpy as np
import pytest

from edgeft.core.errors import DataError
from edgeft.verify.numerics import cosine, error_summary, sqnr_db

X = np.array([[3.0, -4.0]], dtype=np.float32)


def test_errors_by_hand() -> None:
    found = error_summary(X, X + np.array([[0.5, -0.1]], dtype=np.float32))
    assert (found.max_abs, found.mean_abs) == pytest.approx((0.5, 0.3), abs=1e-6)
    assert found.p99_abs == pytest.approx(0.496, abs=1e-6)


def test_sqnr_by_hand() -> None:
    assert sqnr_db(X, X * 0.9) == pytest.approx(20.0, abs=1e-4)  # a tenth of the amplitude is 20 dB
    assert sqnr_db(X, X) == math.inf
    assert sqnr_db(np.zeros(2), np.ones(2)) == -math.inf


def test_cosine_by_hand() -> None:
    assert cosine(X, 2 * X) == pytest.approx(1.0)
    assert cosine(X, np.array([[4.0, 3.0]])) == pytest.approx(0.0)
    assert cosine(np.zeros(2), np.zeros(2)) == 1.0
    assert cosine(np.zeros(2), np.ones(2)) == 0.0


def test_unusable_tensors_are_refused() -> None:
    for other, why in [(X[:, :1], "shape"), (X * np.nan, "NaN")]:
        with pytest.raises(DataError, match=why):
            error_summary(X, other)
    with pytest.raises(DataError, match="empty"):
        sqnr_db(X[:0], X[:0])
