"""Weights as matrices, in the order in which integer kernels multiply them.

A weight is viewed as [G, O, K]: G groups, O output channels of a group, K products of one output in the order of the
kernel's reduction: (kh, kw, cin) of the NHWC im2col for Conv, the row index for MatMul and Gemm. All that chooses
integers works on this view. Inputs are viewed the same way: [G, P, K] with P positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.quantize.affine import Integers


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """Where a 2-D Conv reads: kernel, strides, dilations, and padding (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """How one operator's weight maps to [G, O, K].

    Args:
        shape: the weight's own shape.
        axis: its output-channel axis.
        groups: G; 1 for MatMul and Gemm.
        geometry: the convolution's geometry, or None for MatMul and Gemm.
    """

    shape: tuple[int, ...]
    axis: int
    groups: int
    geometry: ConvGeometry | None

    @property
    def channels(self) -> int:
        """Number of output channels, G * O."""
        return self.shape[self.axis]

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel of its own: such kernels do not pair products."""
        return self.geometry is not None and self.shape[1] == 1 and self.groups == self.shape[0]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of a Conv's output for an input of that size.

        Raises:
            ValueError: the layout is not a convolution's.
        """
        if self.geometry is None:
            message = "only a convolution has an output size"
            raise ValueError(message)
        top, left, bottom, right = self.geometry.pads
        (kh, kw), (sh, sw), (dh, dw) = self.geometry.kernel, self.geometry.strides, self.geometry.dilations
        return (height + top + bottom - dh * (kh - 1) - 1) // sh + 1, (
            width + left + right - dw * (kw - 1) - 1
        ) // sw + 1

    def positions(self, shape: Sequence[int]) -> int:
        """Return how many output positions an input of `shape` has: [N, C, H, W] for Conv, [..., I] else."""
        if self.geometry is None:
            return math.prod(shape[:-1])
        return shape[0] * math.prod(self.output_size(shape[2], shape[3]))

    def to_matrix(self, weight: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return `weight` as [G, O, K]."""
        if self.geometry is None:
            rows = weight if self.axis == 0 else weight.T
            return rows[None]
        rows = weight.transpose(0, 2, 3, 1).reshape(self.shape[0], -1)
        return rows.reshape(self.groups, -1, rows.shape[1])

    def from_matrix(self, matrix: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the [G, O, K] `matrix` in the weight's own shape."""
        if self.geometry is None:
            return np.ascontiguousarray(matrix[0] if self.axis == 0 else matrix[0].T)
        out_channels, in_channels, *kernel = self.shape
        rows = matrix.reshape(out_channels, *kernel, in_channels)
        return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))


def weight_layout(node: ir.Node, shape: tuple[int, ...], axis: int) -> WeightLayout:
    """Return the layout of a weight of `shape` that `node` reads.

    Args:
        node: a 2-D Conv with explicit padding, a MatMul or a Gemm.
        shape: of its weight.
        axis: the weight's output-channel axis; negative axes count from the end.
    """
    if node.op_type != "Conv":
        return WeightLayout(shape, axis % len(shape), 1, None)
    geometry = ConvGeometry(
        (shape[2], shape[3]),
        _pair(node.attributes.get_ints("strides", [1, 1])),
        _pair(node.attributes.get_ints("dilations", [1, 1])),
        _four(node.attributes.get_ints("pads", [0, 0, 0, 0])),
    )
    return WeightLayout(shape, axis % len(shape), node.attributes.get_int("group", 1), geometry)


def _pair(values: object) -> tuple[int, int]:
    first, second = (int(v) for v in np.asarray(values))
    return first, second


def _four(values: object) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(v) for v in np.asarray(values))
    return top, left, bottom, right


def patches(x: Integers, layout: WeightLayout, padding: float, positions: NDArray[np.int64] | None = None) -> Integers:
    """Return the inputs of every product, [G, P, K], for P output positions.

    Args:
        x: [N, C, H, W] for Conv, [..., I] for MatMul and Gemm; any dtype, which is kept.
        layout: of the weight.
        padding: the value outside the image (the zero point where `x` holds integers).
        positions: flat output positions (n, oh, ow) to keep; None keeps all.
    """
    geometry = layout.geometry
    if geometry is None:
        rows = x.reshape(1, -1, x.shape[-1])
        return rows if positions is None else rows[:, positions]
    top, left, bottom, right = geometry.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(geometry.kernel, geometry.dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[
        :, :, :: geometry.strides[0], :: geometry.strides[1], :: geometry.dilations[0], :: geometry.dilations[1]
    ]
    n, channels, height, width = windows.shape[:4]
    grouped = windows.reshape(n, layout.groups, channels // layout.groups, height, width, *geometry.kernel)
    ordered = grouped.transpose(1, 0, 3, 4, 5, 6, 2)  # G, N, OH, OW, KH, KW, CIN
    if positions is None:
        return ordered.reshape(layout.groups, n * height * width, -1)
    image, row, column = np.unravel_index(positions, (n, height, width))
    return ordered[:, image, row, column].reshape(layout.groups, len(positions), -1)
