"""Integer operators in numpy, exact sums and onnxruntime's rounding.

    requantize:  q = clip(round_half_even(clip(float32(acc) * m, qmin - z, qmax - z)) + z),   m float32

Sums are float64 matrix products of integers: every partial sum stays below 2^53, so they are exact in any order.
Sources: onnxruntime's MLAS (qgemm, qladd, qlmul, qlgavgpool) and contrib_ops/cpu/quantization, release 1.31, x86.
"""

import numpy as np
from numpy.typing import NDArray

from edgeft.quantize.affine import AffineParams, Doubles, Floats, Integers, QuantizationError
from edgeft.quantize.layout import WeightLayout, patches


def accumulate(x: Integers, zero_point: int, weight: Integers, layout: WeightLayout) -> NDArray[np.int64]:
    """Return the integer sums of a Conv, Gemm or MatMul.

    Args:
        x: integers [N, C, H, W] or [..., I].
        zero_point: of `x`; also what pads it.
        weight: int8, in its own shape; zero point 0.
        layout: of the weight.

    Returns:
        int64 [N, O, H', W'] or [..., O].
    """
    matrix = np.asarray(layout.to_matrix(weight), np.float64)
    if layout.geometry is None:
        rows = (x.astype(np.float64) - zero_point) @ matrix[0].T
        return np.asarray(rows, np.int64)
    images = [_convolve(image[None].astype(np.float64) - zero_point, matrix, layout) for image in x]
    return np.concatenate(images)


def _convolve(x: Doubles, matrix: Doubles, layout: WeightLayout) -> NDArray[np.int64]:
    rows = patches(x, layout, 0.0)
    sums = np.asarray(matrix @ rows.transpose(0, 2, 1), np.int64)  # G, O, P
    height, width = layout.output_size(x.shape[2], x.shape[3])
    return sums.reshape(1, -1, height, width)


def with_bias(accumulated: NDArray[np.int64], bias: Integers | None, axis: int) -> NDArray[np.int64]:
    """Return sums plus the int32 `bias` [O] along `axis`.

    Raises:
        QuantizationError: a sum does not fit int32, so that kernels would wrap around.
    """
    shape = [1] * accumulated.ndim
    shape[axis] = -1
    total = accumulated if bias is None else accumulated + bias.astype(np.int64).reshape(shape)
    if np.abs(total).max(initial=0) >= 2**31:
        raise QuantizationError("an int32 sum overflows", hint="raise the weight scale's floor")
    return total


def requantize(accumulated: NDArray[np.int64], multiplier: Floats, params: AffineParams, axis: int) -> Integers:
    """Return the integers of `accumulated` * `multiplier` on the output's grid.

    Args:
        accumulated: int64, within int32.
        multiplier: float32 [] or [O] along `axis`: input scale * weight scale / output scale.
        params: of the output, per tensor.
        axis: channel axis.
    """
    limits, zero_point = np.iinfo(params.dtype.value), int(params.zero_point)
    shape = [1] * accumulated.ndim
    shape[axis] = -1
    factor = multiplier.reshape(shape) if multiplier.ndim else multiplier
    scaled = accumulated.astype(np.float32) * factor
    bounded = np.clip(scaled, np.float32(limits.min - zero_point), np.float32(limits.max - zero_point))
    return np.asarray(np.rint(bounded).astype(np.int32) + zero_point, params.dtype.value)


def add(a: Integers, a_params: AffineParams, b: Integers, b_params: AffineParams, params: AffineParams) -> Integers:
    """Return a + b on the grid of `params`, as the AVX2 kernel does: fused multiply-adds in float32.

    The zero points' share is one of them, r_a z_a + fl(r_b z_b): rounding r_a z_a by itself tips a tie now and then.
    """
    ratio_a, ratio_b = a_params.scale / params.scale, b_params.scale / params.scale
    zero_a, zero_b = np.asarray(a_params.zero_point), np.float32(b_params.zero_point)
    fixed = np.float32(params.zero_point) - _fused(zero_a, ratio_a, ratio_b * zero_b)
    value = _fused(a, ratio_a, _fused(b, ratio_b, fixed))
    limits = np.iinfo(params.dtype.value)
    return np.clip(np.rint(value), limits.min, limits.max).astype(params.dtype.value)


def _fused(q: Integers, ratio: Floats | np.float32, addend: Floats | np.float32) -> Floats:
    """Return q * ratio + addend rounded once to float32; the float64 product of 8 and 24 bits is exact."""
    return (q.astype(np.float64) * np.float64(ratio) + np.asarray(addend, np.float64)).astype(np.float32)


def multiply(
    a: Integers, a_params: AffineParams, b: Integers, b_params: AffineParams, params: AffineParams
) -> Integers:
    """Return a * b on the grid of `params`: the integer product is scaled and the zero point added before rounding."""
    product = (a.astype(np.int32) - int(a_params.zero_point)) * (b.astype(np.int32) - int(b_params.zero_point))
    ratio = a_params.scale * b_params.scale / params.scale
    value = product.astype(np.float32) * ratio + np.float32(params.zero_point)
    limits = np.iinfo(params.dtype.value)
    return np.clip(np.rint(value), limits.min, limits.max).astype(params.dtype.value)


def global_average(x: Integers, x_params: AffineParams, params: AffineParams) -> Integers:
    """Return the mean over H and W of [N, C, H, W] on the grid of `params`, [N, C, 1, 1]."""
    size = x.shape[2] * x.shape[3]
    total = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64) - int(x_params.zero_point) * size
    multiplier = x_params.scale / (params.scale * np.float32(size))
    return requantize(total, np.asarray(multiplier, np.float32), params, 1)


def average(
    x: Integers, x_params: AffineParams, window: WeightLayout, params: AffineParams, *, include_pad: bool
) -> Integers:
    """Return AveragePool of [N, C, H, W] on the grid of `params`: float32 sums, the zero point added before rounding.

    Args:
        x: integers.
        x_params: of the input.
        window: the pool as a depthwise layout.
        params: of the output.
        include_pad: divide by the whole window, also at the border.
    """
    taps = patches(x.astype(np.float32) - np.float32(x_params.zero_point), window, 0.0)
    total = np.zeros(taps.shape[:-1], np.float32)
    for tap in range(taps.shape[-1]):
        total += x_params.scale * taps[..., tap]
    inside = patches(np.ones_like(x, np.float32), window, 1.0 if include_pad else 0.0).sum(axis=-1)
    value = total / inside / params.scale + np.float32(params.zero_point)
    limits = np.iinfo(params.dtype.value)
    return _to_images(np.clip(np.rint(value), limits.min, limits.max).astype(params.dtype.value), x, window)


def maximum(x: Integers, window: WeightLayout) -> Integers:
    """Return MaxPool of integers [N, C, H, W]; `window` is the pool as a depthwise layout."""
    return _to_images(patches(x, window, float(np.iinfo(x.dtype).min)).max(axis=-1), x, window)


def _to_images(pooled: Integers, x: Integers, window: WeightLayout) -> Integers:
    """Return [C, N * H' * W'] as [N, C, H', W']."""
    height, width = window.output_size(x.shape[2], x.shape[3])
    return pooled.reshape(x.shape[1], x.shape[0], height, width).transpose(1, 0, 2, 3)
