"""Closed-form rounding: each column's rounding error is passed on to the columns that are still free.

    H = covariance of the inputs + damping,   U = upper Cholesky factor of H^-1
    q_k = clip(round(w_k / scale), bounds),   err = (w_k - scale q_k) / U_kk,   w_j -= err U_kj   for j > k

The pair rule is a bound on every second column: with its partner fixed, the safe values are an interval. Columns keep
the kernel's order, so that partners stay neighbours. Source: Frantar et al. 2023 (GPTQ), algorithm 1, lazy blocks.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from edgeft.quantize.affine import Doubles
from edgeft.quantize.pair_rule import partner_bound
from edgeft.quantize.weights import IntegerMatrix

RoundColumn: TypeAlias = Callable[[int, Doubles, Doubles], tuple[Doubles, Doubles]]
"""(k, what column k has become [G, O], integers [G, O, K] so far) -> its integers, and what one of them stands for."""

DAMPING = 0.01
_BLOCK = 64


def gptq(matrix: Doubles, covariance: Doubles, start: IntegerMatrix, *, pair_safe: bool) -> IntegerMatrix:
    """Return integers on the grid of `start` with less expected output error than rounding to nearest.

    Args:
        matrix: float64 [G, O, K] weights.
        covariance: float64 [G, K, K] of the inputs.
        start: integers whose scales are kept, and whose channels stay where this is no better.
        pair_safe: keep the pair rule.
    """
    scale = start.scale.astype(np.float64)

    def nearest(k: int, column: Doubles, q: Doubles) -> tuple[Doubles, Doubles]:
        lowest, highest = partner_bound(q, k) if pair_safe else (-127.0, 127.0)
        return np.clip(np.rint(column / scale), lowest, highest), scale

    found = IntegerMatrix(pass_errors_on(matrix, covariance, nearest).astype(np.int8), start.scale)
    worse = output_error(matrix, found.real, covariance) > output_error(matrix, start.real, covariance)
    return IntegerMatrix(np.where(worse[..., None], start.values, found.values), start.scale)


def pass_errors_on(matrix: Doubles, covariance: Doubles, round_column: RoundColumn) -> Doubles:
    """Return the integers [G, O, K] of `round_column`: each column takes on the errors of those before it.

    Args:
        matrix: float64 [G, O, K] weights.
        covariance: float64 [G, K, K] of the inputs.
        round_column: how one column is rounded.
    """
    factor = _inverse_factor(covariance)
    work = matrix.copy()
    q = np.zeros_like(work)
    columns = work.shape[-1]
    for low in range(0, columns, _BLOCK):
        high = min(low + _BLOCK, columns)
        errors = np.zeros((*work.shape[:-1], high - low))
        for k in range(low, high):
            q[..., k], scale = round_column(k, work[..., k], q)
            error = (work[..., k] - q[..., k] * scale) / factor[:, k, k][:, None]
            work[..., k + 1 : high] -= error[..., None] * factor[:, None, k, k + 1 : high]
            errors[..., k - low] = error
        work[..., high:] -= errors @ factor[:, low:high, high:]
    return q


def output_error(matrix: Doubles, rounded: Doubles, covariance: Doubles) -> Doubles:
    """Return the expected squared error of each output of `rounded`, e^T cov e, [G, O]."""
    error = rounded - matrix
    result: Doubles = ((error @ covariance) * error).sum(axis=-1)
    return result


def _inverse_factor(covariance: Doubles) -> Doubles:
    """Return the upper Cholesky factor of the damped inverse, [G, K, K].

    Where inputs hardly vary, their covariance is rounding noise and may have negative directions, larger than the
    damping: these count as directions in which nothing varies.
    """
    size = covariance.shape[-1]
    diagonal = np.trace(covariance, axis1=-2, axis2=-1) / size
    floor = DAMPING * np.where(diagonal > 0, diagonal, 1.0)
    damped = covariance + floor[:, None, None] * np.eye(size)
    try:
        lower = np.linalg.cholesky(np.linalg.inv(damped))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(damped)
        kept = np.maximum(values, floor[:, None])
        lower = np.linalg.cholesky((vectors / kept[:, None, :]) @ vectors.transpose(0, 2, 1))
    return lower.transpose(0, 2, 1)
