"""Second-order statistics of an operator's quantized inputs: what a weight error costs, and what shifts its mean.

For outputs y = W x + b the error of integer weights W' on the same inputs splits into a shift and a spread:

    E[(W' x - W x)^2] = (e^T mean)^2 + e^T cov e        e = W' - W

The shift is what bias correction removes, so rounding minimises the spread alone: the covariance, not the raw moment.
Where the float graph's inputs x_f are at hand too, cov(x_f, x) tells how to make up for what earlier layers lost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import AffineParams, Doubles, Floats, Integers
from edgeft.quantize.input_sums import InputSums
from edgeft.quantize.layout import WeightLayout, patches

POSITIONS_PER_PRODUCT, FEWEST_POSITIONS, MOST_POSITIONS = 32, 2048, 16_384
"""How many output positions enter a covariance of K products; the mean is over all positions."""


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Mean and covariance of the inputs of every product, in real units.

    Args:
        mean: float64 [G, K], over every position.
        variance: float64 [G, K]: the covariance's diagonal, or over every position where there is none.
        covariance: float64 [G, K, K], over evenly spaced positions, or None where it was not asked for.
        cross: float64 [G, K, K], cov(x_f, x) with the float graph's inputs at the same positions, or None.
    """

    mean: Doubles
    variance: Doubles
    covariance: Doubles | None = None
    cross: Doubles | None = None


class MomentAccumulator:
    """Adds up chunks of quantized inputs, so that memory does not depend on the number of images.

    Args:
        layout: of the operator's weight.
        params: of its input.
        images: how many images will come in all; spreads the sampled positions.
        covariance: False finds variances alone.
    """

    def __init__(self, layout: WeightLayout, params: AffineParams, images: int, *, covariance: bool = True) -> None:
        self._layout, self._whole = layout, covariance
        self._scale = float(params.scale)
        self._zero_point = int(params.zero_point)
        products = int(np.prod(layout.shape)) // layout.channels
        positions = min(max(POSITIONS_PER_PRODUCT * products, FEWEST_POSITIONS), MOST_POSITIONS)
        self._per_image = -(-positions // images)
        self._sums = InputSums(layout, squares=not covariance)
        self._first: Doubles | None = None
        self._second: Doubles | None = None
        self._real_first: Doubles | None = None
        self._cross: Doubles | None = None
        self._sampled = 0

    def add(self, q: Integers, real: Floats | None = None, *, images: int | None = None) -> None:
        """Add integer inputs, [N, C, H, W] or [N, ..., I], and the float graph's inputs for the same images.

        Args:
            q: the integers.
            real: the float graph's.
            images: how many images they come from, where that is not N: [N * L, I].
        """
        self._sums.add(q)
        if not self._whole:
            return
        positions = self._layout.positions(q.shape)
        chosen = evenly_spaced(positions, self._per_image * (images or len(q)))
        x = patches(q, self._layout, self._zero_point, chosen).astype(np.float32) - np.float32(self._zero_point)
        self._first = _added(self._first, x.sum(axis=1, dtype=np.float64))
        self._second = _added(self._second, np.matmul(x.transpose(0, 2, 1), x).astype(np.float64))
        self._sampled += x.shape[1]
        if real is not None:
            y = patches(real, self._layout, 0.0, chosen).astype(np.float32)
            self._real_first = _added(self._real_first, y.sum(axis=1, dtype=np.float64))
            self._cross = _added(self._cross, np.matmul(y.transpose(0, 2, 1), x).astype(np.float64))

    def result(self) -> InputMoments:
        """Return the moments of everything added."""
        overall, *squares = self._sums.means(self._zero_point)
        if self._first is None or self._second is None:
            return InputMoments(overall * self._scale, (squares[0] - overall**2) * self._scale**2)
        mean = self._first / self._sampled
        covariance = (self._second / self._sampled - mean[:, :, None] * mean[:, None, :]) * self._scale**2
        cross = None
        if self._cross is not None and self._real_first is not None:
            real_mean = self._real_first / self._sampled
            cross = (self._cross / self._sampled - real_mean[:, :, None] * mean[:, None, :]) * self._scale
        return InputMoments(overall * self._scale, np.diagonal(covariance, axis1=-2, axis2=-1), covariance, cross)


def _added(total: Doubles | None, part: Doubles) -> Doubles:
    return part if total is None else total + part


def evenly_spaced(count: int, wanted: int) -> NDArray[np.int64]:
    """Return at most `wanted` positions of `count`, evenly spaced."""
    if count <= wanted:
        return np.arange(count)
    spread: NDArray[np.int64] = np.floor((np.arange(wanted) + 0.5) * (count / wanted)).astype(np.int64)
    return spread
