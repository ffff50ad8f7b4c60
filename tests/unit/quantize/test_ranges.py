import numpy as np
import pytest

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.observers import ChannelImportance, Histogram
from edgeft.quantize.ranges import RANGES, Grid, minmax_range, mse_range, percentile_range

U8, S8 = Grid(255, symmetric=False), Grid(254, symmetric=True)


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
        minmax_range(Histogram("t"), U8)
    assert minmax_range(observed(np.array([-1.0, 2.0])), U8) == (-1.0, 2.0)


def test_a_uniform_tensor_is_not_clipped() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 200_000)
    low, high = mse_range(observed(values), U8)
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(3, abs=0.04)


@pytest.mark.parametrize("steps", [15, 255])
def test_heavy_tails_are_clipped_where_it_really_costs_least(steps: int) -> None:
    values = np.random.default_rng(1).standard_t(3, 100_000)
    low, high = mse_range(observed(values), Grid(steps, symmetric=False))
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
    low, high = mse_range(observed(values), U8)
    assert low == 0.0
    assert 0 < high <= values.max() * (1 + 1e-6)


def test_symmetric_ranges_are_symmetric() -> None:
    low, high = mse_range(observed(np.random.default_rng(3).normal(size=10_000)), S8)
    assert low == -high


def test_a_dead_tensor_has_an_empty_range() -> None:
    assert mse_range(observed(np.zeros(10)), U8) == (0.0, 0.0)


def test_a_constant_tensor_keeps_its_value() -> None:
    low, high = mse_range(observed(np.full(50, 2.5)), U8)
    assert low == 0.0
    assert high == pytest.approx(2.5, rel=0.02)


CLIPPING = [name for name in RANGES if name != "minmax"]


@pytest.mark.parametrize("method", RANGES)
@pytest.mark.parametrize("grid", [U8, S8])
def test_every_method_needs_a_batch(method: str, grid: Grid) -> None:
    with pytest.raises(QuantizationError, match="'t' saw no batch"):
        RANGES[method](Histogram("t"), grid)


@pytest.mark.parametrize("method", RANGES)
@pytest.mark.parametrize("grid", [U8, S8])
def test_every_method_takes_dead_and_constant_tensors(method: str, grid: Grid) -> None:
    assert RANGES[method](observed(np.zeros(10)), grid) == (0.0, 0.0)
    for constant in (2.5, -2.5, 1e-30, 3e38):
        low, high = RANGES[method](observed(np.full(50, constant)), grid)
        # a clip of 1 % costs less than half a step only where it is tried: the search's fractions are 1 % apart
        assert max(-low, high) == pytest.approx(abs(constant), rel=0.02)


@pytest.mark.parametrize("method", CLIPPING)
@pytest.mark.parametrize("seed", range(3))
def test_clips_lie_within_the_extremes_and_are_symmetric_where_asked(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, 50_000) + rng.normal()
    low, high = RANGES[method](observed(values), U8)
    assert np.float32(values.min()) <= low < 0 < high <= np.float32(values.max())
    low, high = RANGES[method](observed(values), S8)
    assert low == -high
    assert 0 < high <= np.abs(values).max() * (1 + 1e-6)


@pytest.mark.parametrize("method", CLIPPING)
def test_a_far_outlier_is_clipped(method: str) -> None:
    values = np.random.default_rng(4).normal(size=400_000)
    values[7] = 60.0
    low, high = RANGES[method](observed(values), U8)
    assert -6 < low < -2.5
    assert 2.5 < high < 50  # the squared error of one value 60 away is worth a wider grid for all


@pytest.mark.parametrize("seed", range(4))
def test_percentiles_cut_as_much_as_they_may_and_a_bin_more_would_be_too_much(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_t(3, 300_000) * rng.uniform(0.1, 30)).astype(np.float32)
    values[::3] = 0  # zeros do not count
    histogram = observed(values)
    nonzero, width = np.sort(values[values != 0]), histogram.width
    allowed = len(nonzero) * 1e-5
    low, high = percentile_range(histogram, U8)
    assert (nonzero < low).sum() <= allowed / 2 < (nonzero < low + width).sum()
    assert (nonzero >= high).sum() <= allowed / 2 < (nonzero >= high - width).sum()
    bound = percentile_range(histogram, S8)[1]
    assert (np.abs(nonzero) > bound).sum() <= allowed < (np.abs(nonzero) >= bound - width).sum()


def test_a_percentile_keeps_the_few_values_of_a_sparse_tensor() -> None:
    values = np.zeros(2_000_000)
    values[:3] = [4.0, 5.0, 6.0]
    assert percentile_range(observed(values), U8) == (4.0, 6.0)


@pytest.mark.parametrize("grid", [U8, S8])
def test_without_importance_the_output_error_is_the_tensors_own(grid: Grid) -> None:
    histogram = observed(np.random.default_rng(5).standard_t(3, 50_000))
    assert RANGES["output_error"](histogram, grid) == mse_range(histogram, grid)


@pytest.mark.parametrize("steps", [15, 255])
def test_the_output_error_is_the_least_that_a_real_product_has(steps: int) -> None:
    rng = np.random.default_rng(6)
    spread = np.array([0.3, 1.0, 4.0, 0.5])  # the widest channel hardly matters
    weight = rng.normal(size=(8, 4)) * np.array([1.0, 2.0, 0.02, 1.0])
    x = rng.standard_t(4, (4_000, 4)) * spread
    importance = np.rint((weight**2).sum(axis=0) / (weight**2).sum(axis=0).max() * 65535).astype(np.int64)
    histogram = Histogram("t")
    histogram.update_(x.astype(np.float32), importance=ChannelImportance(-1, importance))

    def output_error(low: float, high: float) -> float:
        scale = (high - low) / steps
        rounded = np.rint((np.clip(x, low, high) - low) / scale) * scale + low
        return float((((rounded - x) @ weight.T) ** 2).mean())

    grid = Grid(steps, symmetric=False)
    chosen = output_error(*RANGES["output_error"](histogram, grid))
    tried = [
        output_error(x.min() * a, x.max() * b) for a in np.geomspace(0.05, 1, 24) for b in np.geomspace(0.05, 1, 24)
    ]
    assert chosen <= 1.1 * min(tried)  # bins, the 1/12 model, and errors of one row that are not quite uncorrelated
    assert chosen < 0.7 * output_error(*mse_range(histogram, grid))
