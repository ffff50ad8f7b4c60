import numpy as np
import pytest

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.observers import Histogram
from edgeft.quantize.ranges import minmax_range, mse_range


def observed(values: np.ndarray) -> Histogram:
    histogram = Histogram("t")
    histogram.update_(values.astype(np.float32))
    return histogram


def squared_error(values: np.ndarray, low: float, high: float, steps: int) -> float:
    """The real error of rounding to the grid, value by value."""
    scale = (high - low) / steps
    rounded = np.rint((np.clip(values, low, high) - low) / scale) * scale + low
    return float(((rounded - values) ** 2).mean())


def test_minmax_needs_a_batch() -> None:
    with pytest.raises(QuantizationError, match="'t' saw no batch"):
        minmax_range(Histogram("t"))
    assert minmax_range(observed(np.array([-1.0, 2.0]))) == (-1.0, 2.0)


def test_a_uniform_tensor_is_not_clipped() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 200_000)
    low, high = mse_range(observed(values), 255, symmetric=False)
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(3, abs=0.04)


@pytest.mark.parametrize("steps", [15, 255])
def test_heavy_tails_are_clipped_where_it_really_costs_least(steps: int) -> None:
    values = np.random.default_rng(1).standard_t(3, 100_000)
    low, high = mse_range(observed(values), steps, symmetric=False)
    chosen = squared_error(values, low, high, steps)
    assert chosen < squared_error(values, values.min(), values.max(), steps)
    grid = [
        squared_error(values, values.min() * a, values.max() * b, steps)
        for a in np.geomspace(0.02, 1, 24)
        for b in np.geomspace(0.02, 1, 24)
    ]
    assert chosen <= 1.05 * min(grid)  # the histogram's bins and the 1/12 model are approximations


def test_one_sided_tensors_keep_zero_as_their_lower_end() -> None:
    values = np.maximum(np.random.default_rng(2).normal(size=10_000), 0)
    low, high = mse_range(observed(values), 255, symmetric=False)
    assert low == 0.0
    assert 0 < high <= values.max() * (1 + 1e-6)


def test_symmetric_ranges_are_symmetric() -> None:
    low, high = mse_range(observed(np.random.default_rng(3).normal(size=10_000)), 254, symmetric=True)
    assert low == -high


def test_a_dead_tensor_has_an_empty_range() -> None:
    assert mse_range(observed(np.zeros(10)), 255, symmetric=False) == (0.0, 0.0)


def test_a_constant_tensor_keeps_its_value() -> None:
    low, high = mse_range(observed(np.full(50, 2.5)), 255, symmetric=False)
    assert low == 0.0
    assert high == pytest.approx(2.5, rel=0.02)
