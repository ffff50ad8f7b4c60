"""Streaming observers of activations: memory does not depend on how many images are seen.

A histogram has bins [i w, (i + 1) w) for i = -B .. B - 1, with w a power of two. When a value does not fit, w doubles
and neighbours merge: bin j of the new one is bins 2j and 2j + 1 of the old one, exactly. So w depends on the largest
magnitude alone, and histograms of parts merge into the histogram of the whole, whatever the order.

Beside the plain counts a histogram keeps weighted ones, in which a value counts as often as its channel is important:
what an error there costs further on (see importance.py). Weights are integers, so these sums are exact too.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Floats, QuantizationError

BINS_PER_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """Which values of a tensor are counted, in memory order.

    Args:
        stride: every so-many-th value.
        first: index of the first one.
        thinning: where channels have an importance, every so-many-th counted value is weighted.
    """

    stride: int = 1
    first: int = 0
    thinning: int = 1


EVERY_VALUE = Sample()


@dataclass(frozen=True, slots=True)
class Glance:
    """What a histogram needs of one batch of a tensor: small, so that the batch itself can go.

    Args:
        shape: of the batch.
        low: its smallest value; NaN where it holds one.
        high: its largest value.
        sample: which values are counted.
        counted: those values, [n].
    """

    shape: tuple[int, ...]
    low: float
    high: float
    sample: Sample
    counted: Floats


def glance(values: Floats, sample: Sample = EVERY_VALUE) -> Glance:
    """Return what a histogram needs of `values`, any shape with at least one value."""
    counted = values.reshape(-1)[sample.first :: sample.stride].copy()  # a view would keep the whole batch
    return Glance(values.shape, float(values.min()), float(values.max()), sample, counted)


@dataclass(frozen=True, slots=True)
class ChannelImportance:
    """How much an error in each channel of a tensor costs.

    Args:
        axis: the channel axis; negative axes count from the end.
        weights: int64 [C], >= 1.
    """

    axis: int
    weights: NDArray[np.int64]

    def of_sample(self, shape: tuple[int, ...], sample: Sample) -> NDArray[np.int64]:
        """Return the weight of every weighted value of a tensor of `shape`.

        Raises:
            QuantizationError: the axis does not have one index per weight.
        """
        axis = self.axis % len(shape)
        if shape[axis] != len(self.weights):
            raise QuantizationError(f"axis {axis} of {list(shape)} does not have {len(self.weights)} channels")
        inner, size = math.prod(shape[axis + 1 :]), math.prod(shape)
        return self.weights[_channels(sample.first, size, sample.stride * sample.thinning, inner, len(self.weights))]


@lru_cache(maxsize=2048)
def _channels(first: int, size: int, step: int, inner: int, channels: int) -> NDArray[np.int32]:
    """Return the channel of every `step`-th of `size` values: the same ones for every image of that shape."""
    return (np.arange(first, size, step) // inner % channels).astype(np.int32)


@dataclass(slots=True)
class Histogram:
    """Counts of the non-zero values of one tensor, beside its exact extremes.

    Zeros are counted apart: they are exact on every grid, so they carry no rounding error.

    Args:
        name: the tensor, for messages.
        counts: int64 [2 B], bins from -B w to B w.
        exponent: w = 2 ** exponent; None until a non-zero value is seen.
        zeros: how many values were exactly 0.
        low: the smallest value seen.
        high: the largest value seen.
        weighted: int64 [2 B], the counts times the importance of each value's channel.
    """

    name: str
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS_PER_SIDE, np.int64))
    exponent: int | None = None
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    weighted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS_PER_SIDE, np.int64))

    @property
    def width(self) -> float:
        """The width of a bin; 0 until a non-zero value is seen."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum()) + self.zeros

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, float64 [2 B]."""
        return np.asarray((np.arange(-BINS_PER_SIDE, BINS_PER_SIDE) + 0.5) * self.width, np.float64)

    def update_(
        self, values: Floats, sample: Sample = EVERY_VALUE, importance: ChannelImportance | None = None
    ) -> None:
        """Count `values` (any shape, any number).

        Args:
            values: one batch of the tensor.
            sample: which of them are counted; the extremes are always over all of them.
            importance: what the weighted counts are weighted by; None: every counted value once.

        Raises:
            QuantizationError: a value is NaN or infinite.
        """
        if values.size:
            self.add_(glance(values, sample), importance)

    def add_(self, seen: Glance, importance: ChannelImportance | None = None) -> None:
        """Count what was `seen` of one batch, see `update_`.

        Raises:
            QuantizationError: a value is NaN or infinite.
        """
        low, high, counted, sample = seen.low, seen.high, seen.counted, seen.sample
        if not (math.isfinite(low) and math.isfinite(high)):
            raise QuantizationError(
                f"tensor {self.name!r} holds NaN or Inf on the calibration data",
                hint="check the checkpoint and the preprocessing: the float model itself is broken on these images",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover_(max(-low, high))
        zeros = int(np.count_nonzero(counted == 0))  # of booleans: four times as fast as of floats
        self.zeros += zeros
        if self.exponent is None or zeros == counted.size:
            return
        bins = counted * np.float32(math.ldexp(1.0, -self.exponent))
        np.floor(bins, out=bins)
        bins += BINS_PER_SIDE  # whole numbers below 2^24: exact
        index = bins.astype(np.intp)
        counts = np.bincount(index, minlength=2 * BINS_PER_SIDE)
        counts[BINS_PER_SIDE] -= zeros
        self.counts += counts
        if importance is not None:
            weights = importance.of_sample(seen.shape, sample) * (counted[:: sample.thinning] != 0)
            # float64 sums of integers below 2^53: exact
            counts = np.bincount(index[:: sample.thinning], weights, minlength=2 * BINS_PER_SIDE).astype(np.int64)
        self.weighted += counts

    def merge_(self, other: "Histogram") -> None:
        """Add the counts of `other`, which is left as it is."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros
        if other.exponent is None:
            return
        if self.exponent is None:
            self.exponent = other.exponent
        counts, weighted = other.counts, other.weighted
        self._coarsen_(other.exponent)
        for _ in range(self.exponent - other.exponent):
            counts, weighted = _halved(counts), _halved(weighted)
        self.counts = self.counts + counts
        self.weighted = self.weighted + weighted

    def _cover_(self, magnitude: float) -> None:
        if magnitude == 0:
            return
        _, exponent = math.frexp(magnitude)  # magnitude = m * 2 ** exponent with m < 1
        needed = max(exponent - BINS_PER_SIDE.bit_length() + 1, -126)
        if self.exponent is None:
            self.exponent = needed
        self._coarsen_(needed)

    def _coarsen_(self, exponent: int) -> None:
        while self.exponent is not None and self.exponent < exponent:
            self.counts, self.weighted = _halved(self.counts), _halved(self.weighted)
            self.exponent += 1


def _halved(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts on bins twice as wide; bins are aligned at 0, so no count is split."""
    merged = counts.reshape(-1, 2).sum(axis=1)
    result = np.zeros_like(counts)
    start = BINS_PER_SIDE // 2
    result[start : start + merged.size] = merged
    return result
