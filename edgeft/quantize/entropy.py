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


def divergences(counts: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], levels: int) -> Doubles:
    """Return D(P || Q) in nats of every window, float64 [J].

    Args:
        counts: int64 [B], of the whole histogram; at least one is positive.
        starts: int64 [J], first bin of each window.
        stops: int64 [J], one past its last bin. A window of fewer bins than `levels` must hold every count.
        levels: how many parts a window is spread over.
    """
    log_counts = counts * np.log(np.maximum(counts, 1))
    sums = [np.concatenate([[0], np.cumsum(part)]) for part in (counts, counts > 0, log_counts)]
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return np.array([_divergence(counts, sums, start, stop, levels) for start, stop in pairs])


def _divergence(counts: NDArray[np.int64], sums: list[Doubles], start: int, stop: int, levels: int) -> float:
    below, filled, log_sums = sums
    edges = start - (-np.arange(levels + 1) * (stop - start) // levels)
    kept = np.diff(below[edges]).astype(np.float64)
    bins = np.diff(filled[edges])
    reference = kept.copy()
    entropy = float(log_sums[stop] - log_sums[start])
    for part, end, outside in ((0, start, below[start]), (-1, stop - 1, below[-1] - below[stop])):
        reference[part] += outside
        bins[part] += outside > 0 and counts[end] == 0
        entropy += _xlogx(float(counts[end] + outside)) - _xlogx(float(counts[end]))
    present = reference > 0
    if (kept[present] == 0).any():
        return float("inf")
    cross = float((reference[present] * np.log(kept[present] / bins[present])).sum())
    total = float(below[-1])
    return (entropy - cross) / total + float(np.log(kept.sum() / total))


def _xlogx(x: float) -> float:
    return x * float(np.log(x)) if x > 0 else 0.0
