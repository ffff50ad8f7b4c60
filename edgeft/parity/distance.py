r"""How far one tensor is from another, from sums that add up over inputs: memory does not depend on their number.

With e = y - x:  SQNR = 10 log10(sum x^2 / sum e^2),  cosine = sum xy / (|x| |y|),  and the affine fit y = g x + o that
leaves the least error; `affine_share` is the part of sum e^2 that g and o explain.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeft.core.errors import DataError
from edgeft.quantize.observers import Histogram

_SAMPLE = 2048
"""Values of one tensor and input that enter the percentile; sums are over all of them."""
_PERCENTILE = 0.99
LOWEST_DB = -200.0


@dataclass(frozen=True, slots=True)
class Distance:
    """A tensor of the new graph against the same one of the base graph.

    Args:
        sqnr_db: infinite where they are equal; LOWEST_DB where the base is 0 or a value is not finite.
        cosine: -1..1; 1 where both are 0.
        p99_abs: 99th percentile of |y - x|.
        gain: g of the affine fit.
        offset: o of the affine fit.
        affine_share: of the squared error, 0..1.
        nonfinite: values that are NaN or infinite; the other numbers leave their inputs out.
    """

    sqnr_db: float
    cosine: float
    p99_abs: float
    gain: float
    offset: float
    affine_share: float
    nonfinite: int


@dataclass(slots=True)
class Sums:
    """Sums over the elements of one tensor; x of the base graph, e the difference of the new one from it."""

    count: int = 0
    x: float = 0.0
    e: float = 0.0
    xx: float = 0.0
    xe: float = 0.0
    ee: float = 0.0
    nonfinite: int = 0
    errors: Histogram = field(default_factory=lambda: Histogram("error"))

    def add_(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Add one batch: `x` of the base graph and `y` of the new one.

        Raises:
            DataError: they differ in size, or the base is not finite.
        """
        if x.size != y.size:
            raise DataError(f"a tensor has the shape {list(x.shape)} in one graph and {list(y.shape)} in the other")
        a, b = (np.ascontiguousarray(side, np.float32).reshape(-1) for side in (x, y))
        with np.errstate(over="ignore", invalid="ignore"):
            e = b - a
            ee = float(np.dot(e, e))
        if not math.isfinite(ee):
            if not np.isfinite(a).all():
                raise DataError("the base graph itself gives NaN or infinity here", hint="compare with a sound graph")
            if not np.isfinite(b).all():
                self.nonfinite += int(b.size - np.count_nonzero(np.isfinite(b)))
                return
            a, e = a.astype(np.float64), b.astype(np.float64) - a  # squares of finite values overflow in float32
            ee = float(np.dot(e, e))
        self.count += a.size
        self.x += float(a.sum())
        self.e += float(e.sum())
        self.xx += float(np.dot(a, a))
        self.xe += float(np.dot(a, e))
        self.ee += ee
        self.errors.update_(np.abs(e[:: max(1, a.size // _SAMPLE) | 1]).astype(np.float32))

    def distance(self) -> Distance:
        """Return what the sums say."""
        xy, yy = self.xx + self.xe, self.xx + 2 * self.xe + self.ee
        norms = math.sqrt(max(0.0, self.xx) * max(0.0, yy))
        gain, offset, explained = self._affine()
        return Distance(
            sqnr_db=LOWEST_DB if self.nonfinite else _decibels(self.xx, self.ee),
            cosine=max(-1.0, min(1.0, xy / norms)) if norms else float(self.xx == yy),
            p99_abs=self._percentile(),
            gain=gain,
            offset=offset,
            affine_share=min(1.0, explained / self.ee) if self.ee else 0.0,
            nonfinite=self.nonfinite,
        )

    def _affine(self) -> tuple[float, float, float]:
        """Return gain, offset and the squared error that they explain: least squares of e on x and 1."""
        if not self.count:
            return 1.0, 0.0, 0.0
        mean_x, mean_e = self.x / self.count, self.e / self.count
        spread = self.xx - self.count * mean_x**2
        slope = (self.xe - self.count * mean_x * mean_e) / spread if spread > 1e-12 * self.xx else 0.0
        explained = self.count * mean_e**2 + slope**2 * max(0.0, spread)
        return 1.0 + slope, mean_e - slope * mean_x, explained

    def _percentile(self) -> float:
        total = self.errors.total
        if not total:
            return 0.0
        counted = np.cumsum(self.errors.counts) + self.errors.zeros
        index = int(np.searchsorted(counted, _PERCENTILE * total))
        if self.errors.zeros >= _PERCENTILE * total:
            return 0.0
        edge = (index - len(self.errors.counts) // 2 + 1) * self.errors.width
        return float(min(self.errors.high, edge))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return max(LOWEST_DB, 10 * math.log10(signal / noise)) if signal > 0 else LOWEST_DB
