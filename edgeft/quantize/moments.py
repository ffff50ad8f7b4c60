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
from edgeft.quantize.layout import WeightLayout, patches

POSITIONS_PER_PRODUCT, FEWEST_POSITIONS, MOST_POSITIONS = 32, 2048, 16_384
"""How many output positions enter a covariance of K products; the mean is over all positions."""


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Mean and covariance of the inputs of every product, in real units.

    Args:
        mean: float64 [G, K], over every position.
        variance: float64 [G, K], over evenly spaced positions.
        covariance: float64 [G, K, K], over the same, or None where it was not asked for.
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
        covariance: False finds variances alone, from fewer positions.
    """

    def __init__(self, layout: WeightLayout, params: AffineParams, images: int, *, covariance: bool = True) -> None:
        self._layout, self._whole = layout, covariance
        self._scale = float(params.scale)
        self._zero_point = int(params.zero_point)
        products = int(np.prod(layout.shape)) // layout.channels
        positions = min(max(POSITIONS_PER_PRODUCT * products * covariance, FEWEST_POSITIONS), MOST_POSITIONS)
        self._per_image = -(-positions // images)
        self._sum: Doubles | None = None
        self._count = 0
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
        total, positions = position_sums(q, self._layout, self._zero_point)
        self._sum = _added(self._sum, total)
        self._count += positions
        chosen = evenly_spaced(positions, self._per_image * (images or len(q)))
        x = patches(q, self._layout, self._zero_point, chosen).astype(np.float32) - np.float32(self._zero_point)
        self._first = _added(self._first, x.sum(axis=1, dtype=np.float64))
        second = np.matmul(x.transpose(0, 2, 1), x) if self._whole else np.einsum("gpk,gpk->gk", x, x)
        self._second = _added(self._second, second.astype(np.float64))
        self._sampled += x.shape[1]
        if real is not None:
            y = patches(real, self._layout, 0.0, chosen).astype(np.float32)
            self._real_first = _added(self._real_first, y.sum(axis=1, dtype=np.float64))
            self._cross = _added(self._cross, np.matmul(y.transpose(0, 2, 1), x).astype(np.float64))

    def result(self) -> InputMoments:
        """Return the moments of everything added."""
        if self._sum is None or self._first is None or self._second is None:
            message = "no chunk was added"
            raise ValueError(message)
        mean = self._first / self._sampled
        overall = self._sum / self._count * self._scale
        if not self._whole:
            return InputMoments(overall, (self._second / self._sampled - mean**2) * self._scale**2)
        covariance = (self._second / self._sampled - mean[:, :, None] * mean[:, None, :]) * self._scale**2
        cross = None
        if self._cross is not None and self._real_first is not None:
            real_mean = self._real_first / self._sampled
            cross = (self._cross / self._sampled - real_mean[:, :, None] * mean[:, None, :]) * self._scale
        return InputMoments(overall, np.diagonal(covariance, axis1=-2, axis2=-1), covariance, cross)


def _added(total: Doubles | None, part: Doubles) -> Doubles:
    return part if total is None else total + part


def evenly_spaced(count: int, wanted: int) -> NDArray[np.int64]:
    """Return at most `wanted` positions of `count`, evenly spaced."""
    if count <= wanted:
        return np.arange(count)
    spread: NDArray[np.int64] = np.floor((np.arange(wanted) + 0.5) * (count / wanted)).astype(np.int64)
    return spread


def position_sums(q: Integers, layout: WeightLayout, zero_point: int) -> tuple[Doubles, int]:
    """Return sums of (q - zero point) over every output position, [G, K], and how many positions there are.

    A kernel tap reads a shifted, strided sub-image, so its sum needs no im2col.
    """
    geometry = layout.geometry
    if geometry is None:
        rows = q.reshape(-1, q.shape[-1])
        return (rows.sum(axis=0, dtype=np.int64) - zero_point * len(rows))[None].astype(np.float64), len(rows)
    n, channels, height, width = q.shape
    image = q.sum(axis=0, dtype=np.int32) - n * zero_point  # a batch of millions would fit
    top, left, _, _ = geometry.pads
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.strides, geometry.dilations
    out_h, out_w = layout.output_size(height, width)
    sums = np.zeros((channels, kh, kw), np.float64)
    for i in range(kh):
        line = image[:, _taps(i * dh - top, sh, out_h, height)].sum(axis=1, dtype=np.int64)
        for j in range(kw):
            sums[:, i, j] = line[:, _taps(j * dw - left, sw, out_w, width)].sum(axis=1)
    grouped = sums.reshape(layout.groups, -1, kh, kw).transpose(0, 2, 3, 1)
    return grouped.reshape(layout.groups, -1), n * out_h * out_w


def _taps(offset: int, stride: int, outputs: int, size: int) -> slice:
    """Return the in-image part of {offset + stride * o : o < outputs}; what is outside is padding, which is 0."""
    first = -(-max(-offset, 0) // stride)
    last = min(outputs - 1, (size - 1 - offset) // stride)
    return slice(0, 0) if last < first else slice(offset + stride * first, offset + stride * last + 1, stride)
