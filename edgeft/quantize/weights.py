"""Per-channel weight scales, searched together with the pair rule.

For every output channel qmax runs from 127 down to 64 (scale = max|w| / qmax, never below the floor that its int32 bias
needs); the weights are rounded, unsafe pairs repaired, and the candidate with the least expected output error kept:

    error = sum_k variance_k (w_k - scale q_k)^2

The search is in single precision, five times as fast; what it finds is made in double precision and set against
qmax = 64, so that no channel is ever worse than one whose weights have 7 bits (onnxruntime's reduce_range).
"""

from dataclasses import dataclass

import numpy as np

from edgeft.quantize.affine import SMALLEST_SCALE, Doubles, Floats, Integers
from edgeft.quantize.pair_rule import repair, repair_, suspects_of

QMAX_CANDIDATES = (127, 124, 121, 118, 115, 112, 109, 106, 103, 100, 97, 94, 91, 88, 85, 82, 79, 76, 73, 70, 67, 64)
BIAS_LIMIT = 2.0**30
"""Largest magnitude of an int32 bias; as much again is left for the sums."""


@dataclass(frozen=True, slots=True)
class IntegerMatrix:
    """Integer weights as [G, O, K] int8, and their scales, float32 [G, O]."""

    values: Integers
    scale: Floats

    @property
    def real(self) -> Doubles:
        """What the integers stand for, float64 [G, O, K]."""
        return self.values.astype(np.float64) * self.scale.astype(np.float64)[..., None]


def scale_floor(bias: Doubles, input_scale: float) -> Doubles:
    """Return the least weight scale [C] whose int32 bias fits: |bias| / (input scale * weight scale) <= 2^30."""
    return np.maximum(np.abs(bias) / (input_scale * BIAS_LIMIT), SMALLEST_SCALE / min(input_scale, 1.0))


def search_scales(
    matrix: Doubles, variance: Doubles, floor: Doubles, *, pair_safe: bool, search: bool
) -> IntegerMatrix:
    """Return the integers with the least expected output error.

    Args:
        matrix: float64 [G, O, K] weights.
        variance: float64 [G, K], of each product's input; constant inputs cost nothing once the bias is corrected.
        floor: float64 [G, O], least scales.
        pair_safe: repair unsafe pairs.
        search: try every qmax; else 127 alone.
    """
    variance = np.maximum(variance, 0.0)  # what hardly varies may come out below 0
    importance = variance[:, None, :] + 1e-6 * (variance.mean() + np.finfo(np.float64).tiny)
    largest = np.abs(matrix).max(axis=-1, initial=0.0)
    best = np.full(largest.shape, np.inf)
    scales, values = _scale(largest, QMAX_CANDIDATES[0], floor), np.zeros(matrix.shape, np.int8)
    tried: tuple[Doubles | int, ...] = QMAX_CANDIDATES[:1]
    if search:
        tried = (_least_error(matrix, importance, largest, floor, pair_safe=pair_safe), QMAX_CANDIDATES[-1])
    for qmax in tried:
        scale = _scale(largest, qmax, floor)
        target = matrix / scale[..., None].astype(np.float64)
        candidate = np.clip(np.rint(target), -127, 127)
        if pair_safe:
            candidate = repair(candidate, target, importance)
        error = np.einsum("gok,gk->go", np.square((candidate - target) * scale[..., None]), importance[:, 0])
        better = error < best
        best[better], scales[better], values[better] = error[better], scale[better], candidate[better]
    return IntegerMatrix(values, scales)


def _least_error(matrix: Doubles, importance: Doubles, largest: Doubles, floor: Doubles, *, pair_safe: bool) -> Doubles:
    """Return for each channel, [G, O], the qmax whose integers have the least error, as far as single precision tells.

    Weights are seen as shares of their channel's largest, so that nothing overflows or vanishes.
    """
    shares = (matrix / np.where(largest > 0, largest, 1.0)[..., None]).astype(np.float32, order="C")
    costs = (importance / importance.max(axis=-1, keepdims=True)).astype(np.float32)
    best, found = np.full(largest.shape, np.inf), np.full(largest.shape, 127.0)
    suspects = suspects_of(shares, costs) if pair_safe else None
    target, integers = np.empty_like(shares), np.empty_like(shares)
    for qmax in QMAX_CANDIDATES:
        scale = _scale(largest, qmax, floor).astype(np.float64)
        np.multiply(shares, (largest / scale)[..., None].astype(np.float32), out=target)
        np.rint(target, out=integers)
        if suspects is not None:
            repair_(integers, target, suspects)
        np.subtract(integers, target, out=target)
        np.square(target, out=target)
        error = np.einsum("gok,gk->go", target, costs[:, 0]) * np.square(scale)
        better = error < best
        best[better], found[better] = error[better], qmax
    return found


def _scale(largest: Doubles, qmax: Doubles | int, floor: Doubles) -> Floats:
    """Return the weight scales that bring `largest` to `qmax`, but never below `floor`."""
    return np.maximum(np.where(largest > 0, largest / qmax, 1.0), floor).astype(np.float32)
