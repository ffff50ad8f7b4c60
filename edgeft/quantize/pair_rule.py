"""Pair-safe weights: integer sums that no CPU can saturate.

x86 kernels without VNNI multiply uint8 activations by int8 weights and add two neighbours along K, products 2k and
2k + 1, in saturating int16. With activations in [0, 255] the two products stay within int16 for every input when

    for each sign:  sum of |w| over the pair's weights of that sign  <=  128          (255 * 128 = 32 640 < 32 767)

Weights of opposite sign cannot add up. See docs/quantization.md.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles, Integers

AnyFloat = TypeVar("AnyFloat", bound="np.floating[Any]")
AnyNumber = TypeVar("AnyNumber", bound="np.number[Any]")
PAIR_LIMIT = 128
"""Largest safe magnitude of two weights of one sign that are multiplied side by side."""


@dataclass(frozen=True, slots=True)
class Suspects(Generic[AnyFloat]):
    """Pairs of a matrix that may be unsafe.

    Args:
        first: [P], where their first weights are in the flat matrix; the second follow.
        share: [P], what an error of the first weight costs, of what one of either costs.
    """

    first: NDArray[np.int64]
    share: NDArray[AnyFloat]


def unsafe_pairs(matrix: Integers) -> int:
    """Return how many pairs of [..., K] integers could saturate for some activations; 0 proves that none can.

    Args:
        matrix: integer weights whose last axis is the kernel's order of products (`WeightLayout.to_matrix`).
    """
    return int(np.count_nonzero(_is_unsafe(*_pairs(matrix.astype(np.int64)))))


def repair(integers: NDArray[AnyFloat], target: NDArray[AnyFloat], importance: NDArray[AnyFloat]) -> NDArray[AnyFloat]:
    """Return the cheapest pair-safe integers near `target`, changing only unsafe pairs.

    For an unsafe pair both weights have one sign and the best safe pair has |a| + |b| = 128, so what is left is a
    parabola in a alone: minimise u (a - x)^2 + v (128 - a - y)^2. Its vertex is a* = (u x + v (128 - y)) / (u + v), and
    the best integer is the nearest.

    Args:
        integers: float [..., K], rounded weights within [-127, 127].
        target: float [..., K], what they round: weight / scale.
        importance: float, broadcasts to [..., K]: what a squared error of each weight costs.
    """
    repaired = integers.copy()
    repair_(repaired, target, _suspects(_is_unsafe(*_pairs(integers)), importance, integers.shape))
    return repaired


def repair_(integers: NDArray[AnyFloat], target: NDArray[AnyFloat], suspects: Suspects[AnyFloat]) -> None:
    """Repair `integers` in place, as `repair` does, where only `suspects` may be unsafe.

    Raises:
        ValueError: `integers` are not contiguous.
    """
    if not integers.flags.c_contiguous:
        message = "integers must be contiguous"
        raise ValueError(message)
    rounded, wanted = integers.reshape(-1), target.reshape(-1)
    unsafe = _is_unsafe(rounded[suspects.first], rounded[suspects.first + 1])
    first, share = suspects.first[unsafe], suspects.share[unsafe]
    vertex = share * np.abs(wanted[first]) + (1 - share) * (PAIR_LIMIT - np.abs(wanted[first + 1]))
    lowest = PAIR_LIMIT - 127
    magnitude = np.clip(np.rint(vertex), lowest, PAIR_LIMIT - lowest)
    signs = np.sign(rounded[first])
    rounded[first], rounded[first + 1] = magnitude * signs, (PAIR_LIMIT - magnitude) * signs


def suspects_of(shares: NDArray[AnyFloat], importance: NDArray[AnyFloat]) -> Suspects[AnyFloat]:
    """Return the pairs of [..., K] that can be unsafe once rounded, where 1 becomes at most 127.

    Rounded, a pair is at most 1 more than it was, and unsafe from 129: from shares that add up to 128 / 127.
    """
    first, second = _pairs(shares)
    return _suspects(np.abs(first + second) > 1.0, importance, shares.shape)


def _suspects(pairs: NDArray[np.bool_], importance: NDArray[AnyFloat], shape: tuple[int, ...]) -> Suspects[AnyFloat]:
    """Return `pairs`, [..., K // 2], of a matrix of `shape` whose errors cost `importance`."""
    *rows, pair = np.nonzero(pairs)
    first_cost, second_cost = (each[*rows, pair] for each in _pairs(np.broadcast_to(importance, shape)))
    tiny = np.finfo(importance.dtype).tiny
    share = (first_cost + tiny) / (first_cost + second_cost + 2 * tiny)
    return Suspects(np.ravel_multi_index((*rows, 2 * pair), shape), share)


def _pairs(matrix: NDArray[AnyNumber]) -> tuple[NDArray[AnyNumber], NDArray[AnyNumber]]:
    """Return views of the first and the second weight of every pair of [..., K]; an odd last column has no partner."""
    paired = matrix.shape[-1] // 2 * 2
    return matrix[..., 0:paired:2], matrix[..., 1:paired:2]


def _is_unsafe(first: NDArray[AnyNumber], second: NDArray[AnyNumber]) -> NDArray[np.bool_]:
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
