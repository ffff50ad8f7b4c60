import numpy as np
import pytest

from edgeft.quantize.affine import (
    AffineParams,
    PerAxis,
    QuantizationError,
    dequantize,
    integer_range,
    params_for_range,
    quantize,
)
from edgeft.quantize.placement import IntegerType, TensorType

U8 = TensorType(IntegerType.U8, symmetric=False)
S8 = TensorType(IntegerType.S8, symmetric=True)


def test_integer_ranges() -> None:
    assert integer_range(U8) == (0, 255)
    assert integer_range(S8) == (-127, 127)
    assert integer_range(TensorType(IntegerType.S8, symmetric=False)) == (-128, 127)


def test_rounds_half_to_even_and_saturates() -> None:
    params = AffineParams(np.float32(2.0).reshape(()), np.uint8(10).reshape(()), IntegerType.U8)
    x = np.array([1.0, 3.0, -1.0, -100.0, 1000.0], np.float32)
    assert quantize(x, params).tolist() == [10, 12, 10, 0, 255]
    assert dequantize(np.array([10, 12], np.uint8), params).tolist() == [0.0, 4.0]


def test_per_axis_scales_follow_their_axis() -> None:
    params = AffineParams(np.array([1.0, 0.5], np.float32), np.zeros(2, np.int8), IntegerType.S8, PerAxis(1))
    x = np.array([[3.0, 3.0], [-2.0, -2.0]], np.float32)
    assert quantize(x, params).tolist() == [[3, 6], [-2, -4]]
    assert dequantize(quantize(x, params), params).tolist() == x.tolist()


def test_a_range_is_widened_to_hold_zero() -> None:
    positive = params_for_range(2.0, 10.0, U8)
    assert int(positive.zero_point) == 0
    assert float(positive.scale) == pytest.approx(10 / 255)
    negative = params_for_range(-10.0, -2.0, U8)
    assert int(negative.zero_point) == 255


def test_symmetric_types_take_the_larger_side() -> None:
    params = params_for_range(-3.0, 1.0, S8)
    assert float(params.scale) == pytest.approx(3 / 127)
    assert int(params.zero_point) == 0
    unsigned = params_for_range(-3.0, 1.0, TensorType(IntegerType.U8, symmetric=True))
    assert int(unsigned.zero_point) == 128


def test_a_constant_zero_tensor_gets_scale_one() -> None:
    params = params_for_range(0.0, 0.0, U8)
    assert (float(params.scale), int(params.zero_point)) == (1.0, 0)


@pytest.mark.parametrize("bounds", [(np.nan, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_what_is_no_range_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(QuantizationError, match="not a range"):
        params_for_range(*bounds, U8)


@pytest.mark.parametrize("low", [-0.02, -0.5, -1.0])
def test_a_limit_below_zero_hardly_shortens_the_other_side(low: float) -> None:
    found = params_for_range(low, 6.0, U8, (low, 6.0))
    top = np.float32(255 - int(found.zero_point)) * found.scale
    bottom = -int(found.zero_point) * float(found.scale)
    assert low <= bottom <= low + float(found.scale)
    assert 6.0 - float(found.scale) <= top <= np.float32(6.0)
