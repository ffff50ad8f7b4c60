"""Sums, over every output position, of what each product of an operator reads, and of its square; without im2col.

A kernel tap reads a shifted, strided sub-image, so images are added up first, and each tap's part of their sum once.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import Doubles, Integers
from edgeft.quantize.layout import WeightLayout

_ROWS_AT_ONCE = 32_768
"""As many squares of 8-bit integers add up to less than 2^31."""


class InputSums:
    """Adds up chunks of quantized inputs.

    Args:
        layout: of the operator's weight.
        squares: whether squares are added up, too.
    """

    def __init__(self, layout: WeightLayout, *, squares: bool) -> None:
        self._layout = layout
        self._powers = 2 if squares else 1
        self._rows = 0
        self._totals: list[NDArray[np.int64]] = []

    def add(self, q: Integers) -> None:
        """Add integers, [N, C, H, W] for a convolution, else [..., I]."""
        rows = q if self._layout.geometry is not None else q.reshape(-1, q.shape[-1])
        if not self._totals:
            self._totals = [np.zeros(rows.shape[1:], np.int64) for _ in range(self._powers)]
        self._rows += len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            self._totals[0] += part.sum(axis=0, dtype=np.int32)
            if self._powers > 1:
                self._totals[1] += np.einsum("n...,n...->...", part, part, dtype=np.int32)

    def means(self, zero_point: int) -> list[Doubles]:
        """Return the mean of (q - zero point), and of its square where it was asked for, each float64 [G, K].

        Raises:
            ValueError: nothing was added.
        """
        if not self._totals:
            message = "no chunk was added"
            raise ValueError(message)
        sums = [self._totals[0] - self._rows * zero_point]
        if self._powers > 1:
            sums.append(self._totals[1] - zero_point * (self._totals[0] + sums[0]))
        return [_over_positions(image, self._layout) / self._rows for image in sums]


def _over_positions(image: NDArray[np.int64], layout: WeightLayout) -> Doubles:
    """Return the mean over output positions of what each product reads of `image`, [C, H, W] or [I], as [G, K]."""
    geometry = layout.geometry
    if geometry is None:
        return image[None].astype(np.float64)
    channels, height, width = image.shape
    top, left, _, _ = geometry.pads
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.strides, geometry.dilations
    out_h, out_w = layout.output_size(height, width)
    sums = np.zeros((channels, kh, kw), np.float64)
    for i in range(kh):
        line = image[:, _taps(i * dh - top, sh, out_h, height)].sum(axis=1)
        for j in range(kw):
            sums[:, i, j] = line[:, _taps(j * dw - left, sw, out_w, width)].sum(axis=1)
    grouped = sums.reshape(layout.groups, -1, kh, kw).transpose(0, 2, 3, 1)
    return grouped.reshape(layout.groups, -1) / math.prod((out_h, out_w))


def _taps(offset: int, stride: int, outputs: int, size: int) -> slice:
    """Return the in-image part of {offset + stride * o : o < outputs}; what is outside is padding, which is 0."""
    first = -(-max(-offset, 0) // stride)
    last = min(outputs - 1, (size - 1 - offset) // stride)
    return slice(0, 0) if last < first else slice(offset + stride * first, offset + stride * last + 1, stride)
