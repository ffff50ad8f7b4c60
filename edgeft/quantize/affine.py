"""Affine quantization: what an integer stands for.

    q = clip(round_half_even(x / scale) + zero_point, qmin, qmax)        x' = (q - zero_point) * scale

Division, rounding and saturation are those of ONNX QuantizeLinear, in float32. Source: Jacob et al. 2018, eq. 1.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeft.core.errors import DataError
from edgeft.quantize.placement import IntegerType, TensorType

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[Any]

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Below it a float32 scale loses precision, and x / scale overflows."""


class QuantizationError(DataError):
    """A graph, a tensor or a calibration set cannot be quantized as it is."""


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for the whole tensor."""


@dataclass(frozen=True, slots=True)
class PerAxis:
    """One scale for each index along `axis`."""

    axis: int


Granularity: TypeAlias = PerTensor | PerAxis


def integer_range(kind: TensorType) -> tuple[int, int]:
    """Return (qmin, qmax); a symmetric signed type gives up its lowest value, so that the range is [-qmax, qmax]."""
    limits = np.iinfo(kind.dtype.value)
    symmetric_signed = kind.symmetric and limits.min < 0
    return (-int(limits.max) if symmetric_signed else int(limits.min)), int(limits.max)


@dataclass(frozen=True, slots=True)
class AffineParams:
    """Scale and zero point of a quantized tensor.

    Args:
        scale: float32, shape [] (per tensor) or [C] (per axis), > 0.
        zero_point: integers of the same shape, within the type's range.
        dtype: the integer type.
        granularity: PerTensor or PerAxis.
    """

    scale: Floats
    zero_point: Integers
    dtype: IntegerType
    granularity: Granularity = PerTensor()

    def along(self, values: Integers, rank: int) -> Integers:
        """Reshape `values` [] or [C] so that it broadcasts against a tensor of `rank` dimensions."""
        if isinstance(self.granularity, PerTensor):
            return values
        shape = [1] * rank
        shape[self.granularity.axis] = -1
        return values.reshape(shape)


def quantize(x: Floats, params: AffineParams) -> Integers:
    """Return the integers of `x` (any shape), as QuantizeLinear does, bit for bit."""
    limits = np.iinfo(params.dtype.value)
    scale = params.along(params.scale, x.ndim)
    zero_point = params.along(params.zero_point, x.ndim).astype(np.float32)
    with np.errstate(over="ignore"):  # far outside the range of a tiny scale: infinity, which saturates as it should
        q = np.rint(x.astype(np.float32, copy=False) / scale) + zero_point
    return np.clip(q, limits.min, limits.max).astype(params.dtype.value)


def dequantize(q: Integers, params: AffineParams) -> Floats:
    """Return the float32 values that the integers `q` stand for, as DequantizeLinear does."""
    zero_point = params.along(params.zero_point, q.ndim).astype(np.int32)
    scale = params.along(params.scale, q.ndim)
    result: Floats = (q.astype(np.int32) - zero_point).astype(np.float32) * scale
    return result


def params_for_range(
    low: float, high: float, kind: TensorType, limits: tuple[float, float] = (-math.inf, math.inf)
) -> AffineParams:
    """Return per-tensor parameters that cover [low, high], widened to hold 0 so that padding is exact.

    The largest representable value never exceeds `high` by rounding of the scale: runtimes drop a Clip(0, 6) before a Q
    only where the Q cannot reach past 6.

    Args:
        low: smallest value that matters.
        high: largest one.
        kind: type and symmetry.
        limits: what an asymmetric grid must not reach past on either side, wherever its zero point comes to lie.

    Raises:
        QuantizationError: a bound is NaN or infinite, or low > high.
    """
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise QuantizationError(f"[{low}, {high}] is not a range", hint="look for NaN or Inf in the calibration data")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmin, qmax = integer_range(kind)
    if kind.symmetric:
        bound = max(-low, high)
        steps, zero_point = (qmax if qmin < 0 else (qmax - qmin) // 2), (0 if qmin < 0 else (qmin + qmax + 1) // 2)
        scale = _scale_within(bound, steps)
    else:
        scale = _scale_within(high - low, qmax - qmin)
        bounded = -math.inf < limits[0] < 0  # one step more below would make all steps smaller
        zero_point = int(np.clip((np.floor if bounded else np.rint)(qmin - low / float(scale)), qmin, qmax))
        for limit, steps in ((-limits[0], zero_point - qmin), (limits[1], qmax - zero_point)):
            if math.isfinite(limit) and limit > 0 and steps:
                scale = min(scale, _scale_within(limit, steps))
    return AffineParams(scale, np.asarray(zero_point, kind.dtype.value), kind.dtype)


def _scale_within(width: float, steps: int) -> Floats:
    """Return the largest float32 scale with scale * steps <= width in float32; 1 for an empty range."""
    if width / steps < SMALLEST_SCALE:
        return np.asarray(1.0, np.float32)
    scale = np.float32(width / steps)
    while np.float32(scale * np.float32(steps)) > np.float32(width):
        scale = np.nextafter(scale, np.float32(0))
    return np.asarray(scale, np.float32)
