"""From a histogram to a range: the extremes, or the clip that costs least.

    cost(low, high) = sum_{x < low} (x - low)^2 + sum_{x > high} (x - high)^2 + n_inside * scale^2 / 12

with scale = (high - low) / steps; exact zeros carry no rounding error. The clipped sums come from cumulative moments,
so one cost is O(1) and a whole grid of clips is searched. Source: Banner et al. 2019, section 2; Nagel et al. 2021,
eq. 13.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles, QuantizationError
from edgeft.quantize.observers import Histogram

Range: TypeAlias = tuple[float, float]

_FRACTIONS: NDArray[np.float64] = np.concatenate([[1.0], np.geomspace(0.99, 0.05, 96)])
"""Clips tried on each side, as fractions of the extreme."""


def minmax_range(histogram: Histogram) -> Range:
    """Return the extremes seen.

    Raises:
        QuantizationError: nothing was observed.
    """
    if histogram.low > histogram.high:
        raise QuantizationError(
            f"observer {histogram.name!r} saw no batch", hint="compress.calib_images must be >= 1 and train not empty"
        )
    return histogram.low, histogram.high


def mse_range(histogram: Histogram, steps: int, symmetric: bool) -> Range:  # noqa: FBT001 - mirrors TensorType.symmetric
    """Return the (low, high) with the least expected squared error.

    Args:
        histogram: what was observed.
        steps: number of steps of the integer grid (255 for uint8).
        symmetric: search one clip for both sides.

    Raises:
        QuantizationError: nothing was observed.
    """
    low, high = minmax_range(histogram)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high or not histogram.counts.any():
        return low, high
    lows = low * (_FRACTIONS if low < 0 else np.ones(1))
    highs = high * (_FRACTIONS if high > 0 else np.ones(1))
    if symmetric:
        bound = max(-low, high) * _FRACTIONS
        lows, highs = -bound, bound
        cost = np.diag(_clip_cost(histogram, lows, highs, steps))
        best = int(np.argmin(cost))
        return float(lows[best]), float(highs[best])
    cost = _clip_cost(histogram, lows, highs, steps)
    i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return float(lows[i]), float(highs[j])


def _clip_cost(histogram: Histogram, lows: Doubles, highs: Doubles, steps: int) -> Doubles:
    """Return the cost [len(lows), len(highs)] of each pair of clips."""
    x, n = histogram.centres, histogram.counts.astype(np.float64)
    zero = np.zeros(1)
    moments = [np.concatenate([zero, np.cumsum(n * x**power)]) for power in range(3)]
    below = np.searchsorted(x, lows)
    above = np.searchsorted(x, highs)
    under = _squares(tuple(m[below] for m in moments), lows)
    over = _squares(tuple(m[-1] - m[above] for m in moments), highs)
    inside = np.maximum(moments[0][above][None, :] - moments[0][below][:, None], 0.0)
    scale = (highs[None, :] - lows[:, None]) / steps
    cost: Doubles = under[:, None] + over[None, :] + inside * scale**2 / 12
    return cost


def _squares(moments: tuple[Doubles, ...], clip: Doubles) -> Doubles:
    """Return sum (x - clip)^2 from the 0th, 1st and 2nd moments."""
    count, first, second = moments
    return second - 2 * clip * first + clip**2 * count
