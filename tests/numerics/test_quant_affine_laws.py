"""Laws of affine quantization: bounded error, idempotence, monotonicity."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeft.quantize.affine import dequantize, params_for_range, quantize
from edgeft.quantize.placement import IntegerType, TensorType

KINDS = st.sampled_from(
    [
        TensorType(IntegerType.U8, symmetric=False),
        TensorType(IntegerType.S8, symmetric=False),
        TensorType(IntegerType.S8, symmetric=True),
    ]
)
BOUNDS = st.tuples(st.floats(-1e6, 0, width=32), st.floats(0, 1e6, width=32))


@given(kind=KINDS, bounds=BOUNDS, position=arrays(np.float64, 20, elements=st.floats(0, 1)))
def test_error_inside_the_range_is_at_most_half_a_step(
    kind: TensorType, bounds: tuple[float, float], position: np.ndarray
) -> None:
    low, high = bounds
    params = params_for_range(low, high, kind)
    x = (low + position * (high - low)).astype(np.float32)
    error = np.abs(dequantize(quantize(x, params), params).astype(np.float64) - x)
    # the zero point is rounded, so the far end may lie half a step outside the grid; then float32 rounding of x
    assert (error <= (1 + 1e-4) * float(params.scale) + 1e-6 * np.abs(x)).all()
    if kind.symmetric:
        assert (error <= (0.5 + 1e-4) * float(params.scale) + 1e-6 * np.abs(x)).all()


@given(kind=KINDS, bounds=BOUNDS, x=arrays(np.float32, 20, elements=st.floats(-2e6, 2e6, width=32)))
def test_quantizing_twice_changes_nothing(kind: TensorType, bounds: tuple[float, float], x: np.ndarray) -> None:
    params = params_for_range(*bounds, kind)
    once = quantize(x, params)
    np.testing.assert_array_equal(quantize(dequantize(once, params), params), once)


@given(kind=KINDS, bounds=BOUNDS, x=arrays(np.float32, 20, elements=st.floats(-2e6, 2e6, width=32)))
def test_order_is_kept(kind: TensorType, bounds: tuple[float, float], x: np.ndarray) -> None:
    q = quantize(np.sort(x), params_for_range(*bounds, kind))
    assert (np.diff(q.astype(np.int32)) >= 0).all()


@given(kind=KINDS, bounds=BOUNDS)
def test_zero_is_exact(kind: TensorType, bounds: tuple[float, float]) -> None:
    params = params_for_range(*bounds, kind)
    assert dequantize(quantize(np.zeros(1, np.float32), params), params)[0] == 0


@given(high=st.floats(1e-6, 1e6))
def test_the_grid_never_reaches_past_its_upper_end(high: float) -> None:
    params = params_for_range(0.0, high, TensorType(IntegerType.U8, symmetric=False))
    assert np.float32(255) * params.scale <= np.float32(high)
    assert float(params.scale) >= high / 255 * (1 - 1e-6)
