r"""How far one tensor is from another.

SQNR = 10 log10( sum x^2 / sum (x - y)^2 )    dB; infinite where they are equal
cosine = <x, y> / (|x| |y|)
"""

import math
from dataclasses import dataclass

import numpy as np

from edgeft.core.errors import DataError
from edgeft.verify.accuracy import Floats


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Absolute differences over all elements."""

    max_abs: float
    mean_abs: float
    p99_abs: float


def error_summary(reference: Floats, value: Floats) -> ErrorSummary:
    """Return the absolute errors of `value` against `reference`, float arrays of one shape (for logits [N, K]).

    Raises:
        DataError: shapes differ, they are empty, or a value is not finite.
    """
    _check(reference, value)
    error = np.abs(value.astype(np.float64) - reference.astype(np.float64))
    return ErrorSummary(float(error.max()), float(error.mean()), float(np.quantile(error, 0.99)))


def cosine(reference: Floats, value: Floats) -> float:
    """Return the cosine similarity of two tensors of one shape, flattened: -1..1; 1 where both are zero.

    Raises:
        DataError: shapes differ, they are empty, or a value is not finite.
    """
    _check(reference, value)
    x, y = reference.astype(np.float64).ravel(), value.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    if norms == 0:
        return 1.0 if np.array_equal(x, y) else 0.0
    return float(np.clip(x @ y / norms, -1.0, 1.0))


def sqnr_db(reference: Floats, value: Floats) -> float:
    """Return the signal-to-quantization-noise ratio in dB; infinity where the tensors are equal.

    Raises:
        DataError: shapes differ, they are empty, or a value is not finite.
    """
    _check(reference, value)
    x = reference.astype(np.float64)
    noise = float(np.square(x - value.astype(np.float64)).sum())
    signal = float(np.square(x).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _check(reference: Floats, value: Floats) -> None:
    if reference.shape != value.shape:
        raise DataError(f"tensors of shape {reference.shape} and {value.shape} cannot be compared")
    if not reference.size:
        raise DataError("empty tensors cannot be compared")
    if not (np.isfinite(reference).all() and np.isfinite(value).all()):
        raise DataError("a tensor holds NaN or infinity")
