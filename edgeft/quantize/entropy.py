"""How much of a distribution's information a clip loses (KL divergence), for many clips of one histogram.

A clip keeps the bins of a window. The reference P is the window's bins with everything outside added to its first and
last bin. The candidate Q spreads the window's own counts over `levels` equal parts of it and shares the count of each
part evenly among the bins that are not empty in P. Both are normalised:

    D(P || Q) = sum_i p_i log(p_i / q_i)        infinite where Q has nothing and P has

Bin j of a window of n bins lies in part floor(j levels / n). With prefix sums of counts, of non-empty bins and of
c log c one window costs O(levels), not O(n). Source: Migacz 2017, "8-bit inference with TensorRT", slides 38 to 40;
without the smoothing and the rounding to integers that onnxruntime adds (onnxruntime/quantization/calibrate.py), and
with parts whose sizes differ by at most one bin, where onnxruntime leaves the remainder to the last.
"""

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles

_WINDOWS = 128
"""So many are computed at once."""


def divergences(counts: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], levels: int) -> Doubles:
    """Return D(P || Q) in nats of every window, float64 [J].

    Args:
        counts: int64 [B], of the whole histogram; at least one is positive.
        starts: int64 [J], first bin of each window.
        stops: int64 [J], one past its last bin. A window of fewer bins than `levels` must hold every count.
        levels: how many parts a window is spread over.
    """
    sums = [np.concatenate([[0], np.cumsum(part)]) for part in (counts, counts > 0, _xlogx(counts))]
    blocks = range(0, len(starts), _WINDOWS)
    found = [_divergences(counts, sums, starts[at : at + _WINDOWS], stops[at : at + _WINDOWS], levels) for at in blocks]
    return np.concatenate(found)


def _divergences(
    counts: NDArray[np.int64], sums: list[Doubles], starts: NDArray[np.int64], stops: NDArray[np.int64], levels: int
) -> Doubles:
    below, filled, log_sums = sums
    edges = starts[:, None] - (-np.arange(levels + 1) * (stops - starts)[:, None] // levels)
    kept = np.diff(below[edges]).astype(np.float64)
    bins = np.diff(filled[edges])
    reference = kept.copy()
    entropy = log_sums[stops] - log_sums[starts]
    for part, end, outside in ((0, starts, below[starts]), (-1, stops - 1, below[-1] - below[stops])):
        reference[:, part] += outside
        bins[:, part] += (outside > 0) & (counts[end] == 0)
        entropy += _xlogx(counts[end] + outside) - _xlogx(counts[end])
    each = np.log(np.maximum(kept, 1) / np.maximum(bins, 1))
    impossible = ((reference > 0) & (kept == 0)).any(axis=1)
    total = float(below[-1])
    divergence: Doubles = (entropy - (reference * each).sum(axis=1)) / total + np.log(
        np.maximum(kept.sum(axis=1), 1) / total
    )
    return np.where(impossible, np.inf, divergence)


def _xlogx(x: NDArray[np.int64]) -> Doubles:
    return np.asarray(x * np.log(np.maximum(x, 1)), np.float64)
