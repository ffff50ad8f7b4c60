"""From a histogram to a range. All methods read the same histogram, so one calibration pass serves them all.

    minmax         the extremes
    percentile     cut at most (100 - PERCENTILE) % of the values
    entropy        the clip whose grid keeps most of the distribution (KL divergence, entropy.py)
    mse            the clip with the least expected squared error of the tensor
    output_error   the clip with the least expected squared error of what the weighted operators make of the tensor

Exact zeros stand on every grid: no method counts them. The squared error of a clip is

    cost(low, high) = sum_{x < low} (x - low)^2 + sum_{x > high} (x - high)^2 + n_inside * scale^2 / 12

with scale = (high - low) / steps. The clipped sums come from cumulative moments, so one cost is O(1) and a whole grid
of clips is searched. `output_error` weighs every value by its channel's importance (importance.py). Sources: Banner et
al. 2019, section 2, and Nagel et al. 2021, eq. 13 (squared error); Wu et al. 2020, section 4 (percentile, entropy).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles, QuantizationError
from edgeft.quantize.entropy import divergences
from edgeft.quantize.observers import Histogram

Range: TypeAlias = tuple[float, float]

PERCENTILE = 99.999
"""Of the values kept; onnxruntime's default."""

_FRACTIONS: NDArray[np.float64] = np.concatenate([[1.0], np.geomspace(0.99, 0.05, 96)])
"""Clips tried on each side, as fractions of the extreme."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that a range is spread over.

    Args:
        steps: how many steps lie between the least and the largest one (255 for uint8).
        symmetric: one clip serves both sides.
    """

    steps: int
    symmetric: bool


RangeFunction: TypeAlias = Callable[[Histogram, Grid], Range]
"""Histogram and grid -> (low, high) within the extremes. Raises QuantizationError where nothing was observed."""


def extremes(histogram: Histogram) -> Range:
    """Return the smallest and the largest value seen.

    Raises:
        QuantizationError: nothing was observed.
    """
    if histogram.low > histogram.high:
        raise QuantizationError(
            f"observer {histogram.name!r} saw no batch", hint="compress.calib_images must be >= 1 and train not empty"
        )
    return histogram.low, histogram.high


def minmax_range(histogram: Histogram, grid: Grid) -> Range:
    """Return the extremes seen."""
    del grid  # they are the range on every grid
    return extremes(histogram)


def percentile_range(histogram: Histogram, grid: Grid) -> Range:
    """Return the narrowest range of whole bins that cuts few enough values.

    Asymmetric: at most (100 - PERCENTILE) / 2 % of the non-zero values on each side. Symmetric: at most
    100 - PERCENTILE % beyond the bound, both sides together.
    """
    low, high = extremes(histogram)
    total = histogram.counts.sum()
    if total == 0:
        return low, high
    cut = total * (100.0 - PERCENTILE) / 100.0
    middle = len(histogram.counts) // 2
    if grid.symmetric:
        bound = min(_bins_kept(_folded(histogram.counts), cut) * histogram.width, max(-low, high))
        return -bound, bound
    upper = _bins_kept(histogram.counts, cut / 2) - middle
    lower = _bins_kept(histogram.counts[::-1], cut / 2) - middle
    return max(low, -lower * histogram.width), min(high, upper * histogram.width)


def entropy_range(histogram: Histogram, grid: Grid) -> Range:
    """Return the clip with the least KL divergence; of equal ones the widest.

    A candidate clips both sides at the same magnitude t, a bin's edge; its window is [-t, t] inside the extremes, so
    that no level is spent where no value is. Bins are merged by two first: 1,024 to 2,048 up to the largest magnitude.
    Symmetric: the histogram is that of |x| and has steps / 2 + 1 levels (128 for int8: TensorRT's definition).
    Asymmetric: the histogram is that of x, with steps + 1 levels (256 for uint8).
    """
    low, high = min(extremes(histogram)[0], 0.0), max(extremes(histogram)[1], 0.0)
    if not histogram.counts.any():
        return low, high
    counts, width = histogram.counts.reshape(-1, 2).sum(axis=1), 2 * histogram.width
    middle, levels = len(counts) // 2, grid.steps + 1
    lower, upper = int(np.ceil(-low / width)), int(np.floor(high / width)) + 1 if high > 0 else 0
    largest = max(lower, upper)
    if grid.symmetric:
        counts, middle, levels = _folded(counts), 0, grid.steps // 2 + 1
        lower, upper = 0, largest
    clips = np.arange(1, largest + 1)
    starts, stops = middle - np.minimum(clips, lower), middle + np.minimum(clips, upper)
    tried = (stops - starts >= levels) | (clips == largest)
    found = divergences(counts, starts[tried], stops[tried], levels)
    clip = float(clips[tried][::-1][np.argmin(found[::-1])]) * width
    if grid.symmetric:
        bound = min(clip, max(-low, high))
        return -bound, bound
    return max(low, -clip), min(high, clip)


def mse_range(histogram: Histogram, grid: Grid) -> Range:
    """Return the range with the least expected squared error."""
    return _least_cost(histogram, histogram.counts, grid)


def output_error_range(histogram: Histogram, grid: Grid) -> Range:
    """Return the range with the least expected squared error of the weighted operators' outputs."""
    return _least_cost(histogram, histogram.weighted, grid)


RANGES: Mapping[str, RangeFunction] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "entropy": entropy_range,
    "mse": mse_range,
    "output_error": output_error_range,
}


def _folded(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts of |x|, [B], from those of x, [2 B]."""
    middle = len(counts) // 2
    return counts[middle:] + counts[:middle][::-1]


def _bins_kept(counts: NDArray[np.int64], cut: float) -> int:
    """Return the fewest leading bins that leave at most `cut` values behind them."""
    behind = np.cumsum(counts[::-1])
    return len(counts) - int(np.searchsorted(behind, cut, side="right"))


def _least_cost(histogram: Histogram, counts: NDArray[np.int64], grid: Grid) -> Range:
    low, high = extremes(histogram)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high or not counts.any():
        return low, high
    lows = low * (_FRACTIONS if low < 0 else np.ones(1))
    highs = high * (_FRACTIONS if high > 0 else np.ones(1))
    if grid.symmetric:
        bound = max(-low, high) * _FRACTIONS
        lows, highs = -bound, bound
        cost = np.diag(_clip_cost(histogram.centres, counts, lows, highs, grid.steps))
        best = int(np.argmin(cost))
        return float(lows[best]), float(highs[best])
    cost = _clip_cost(histogram.centres, counts, lows, highs, grid.steps)
    i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return float(lows[i]), float(highs[j])


def _clip_cost(x: Doubles, counts: NDArray[np.int64], lows: Doubles, highs: Doubles, steps: int) -> Doubles:
    """Return the cost [len(lows), len(highs)] of each pair of clips."""
    n = counts.astype(np.float64)
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
