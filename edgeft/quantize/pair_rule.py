"""Pair-safe weights: integer sums that no CPU can saturate.

x86 kernels without VNNI multiply uint8 activations by int8 weights and add two neighbours along K, products 2k and
2k + 1, in saturating int16. With activations in [0, 255] the two products stay within int16 for every input when

    for each sign:  sum of |w| over the pair's weights of that sign  <=  128          (255 * 128 = 32 640 < 32 767)

Weights of opposite sign cannot add up. See docs/quantization.md.
"""

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles, Integers

PAIR_LIMIT = 128
"""Largest safe magnitude of two weights of one sign that are multiplied side by side."""


def pair_view(matrix: Integers) -> Integers:
    """Return [..., K] as pairs [..., ceil(K / 2), 2]; an odd last column is paired with 0."""
    odd = matrix.shape[-1] % 2
    padded = np.concatenate([matrix, np.zeros((*matrix.shape[:-1], odd), matrix.dtype)], axis=-1) if odd else matrix
    return padded.reshape(*matrix.shape[:-1], -1, 2)


def unsafe_pairs(matrix: Integers) -> int:
    """Return how many pairs of [..., K] integers could saturate for some activations; 0 proves that none can.

    Args:
        matrix: integer weights whose last axis is the kernel's order of products (`WeightLayout.to_matrix`).
    """
    pairs = pair_view(matrix).astype(np.int64)
    return int(np.count_nonzero(_is_unsafe(pairs[..., 0], pairs[..., 1])))


def repair(integers: Doubles, target: Doubles, importance: Doubles) -> Doubles:
    """Return the cheapest pair-safe integers near `target`, changing only unsafe pairs.

    For an unsafe pair both weights have one sign and the best safe pair has |a| + |b| = 128, so what is left is a
    parabola in a alone: minimise u (a - x)^2 + v (128 - a - y)^2. Its vertex is a* = (u x + v (128 - y)) / (u + v), and
    the best integer is the nearest.

    Args:
        integers: float64 [..., K], rounded weights within [-127, 127].
        target: float64 [..., K], what they round: weight / scale.
        importance: float64, broadcasts to [..., K]: what a squared error of each weight costs.
    """
    q = pair_view(integers)
    unsafe = _is_unsafe(q[..., 0], q[..., 1])
    if not unsafe.any():
        return integers
    cost = pair_view(np.broadcast_to(importance, integers.shape))[unsafe] + np.finfo(np.float64).tiny
    want, signs = np.abs(pair_view(target)[unsafe]), np.sign(q[unsafe])
    weight = cost[:, 0] / cost.sum(axis=1)
    vertex = weight * want[:, 0] + (1 - weight) * (PAIR_LIMIT - want[:, 1])
    lowest = PAIR_LIMIT - 127
    first = np.clip(np.rint(vertex), lowest, PAIR_LIMIT - lowest)
    repaired = q.copy()
    repaired[unsafe] = np.stack([first, PAIR_LIMIT - first], axis=1) * signs
    flat: Doubles = repaired.reshape(*integers.shape[:-1], -1)[..., : integers.shape[-1]]
    return flat


def _is_unsafe(first: Integers, second: Integers) -> NDArray[np.bool_]:
    """Return whether two weights have one sign and together more than the limit: of opposite signs they never do."""
    unsafe: NDArray[np.bool_] = np.abs(first + second) > PAIR_LIMIT
    return unsafe


def partner_bound(integers: Doubles, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (lowest, highest) safe value of `column` [...], given the column before it in the same pair.

    Args:
        integers: float64 [..., K]; columns before `column` are final.
        column: which one is rounded next.
    """
    full = np.full(integers.shape[:-1], 127.0)
    if column % 2 == 0:
        return -full, full
    partner = integers[..., column - 1]
    return np.maximum(-full, -PAIR_LIMIT - np.minimum(partner, 0)), np.minimum(
        full, PAIR_LIMIT - np.maximum(partner, 0)
    )
