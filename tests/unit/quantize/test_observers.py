import numpy as np
import pytest

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.observers import BINS_PER_SIDE, ChannelImportance, Histogram, Sample


def test_counts_every_value_once_and_zeros_apart() -> None:
    histogram = Histogram("t")
    histogram.update_(np.array([0.0, 0.0, 1.0, -2.0, 3.5], np.float32))
    assert histogram.zeros == 2
    assert histogram.counts.sum() == 3
    assert histogram.total == 5
    assert (histogram.low, histogram.high) == (-2.0, 3.5)


def test_range_grows_by_doubling_and_keeps_values_near_their_bins() -> None:
    histogram = Histogram("t")
    histogram.update_(np.array([0.75], np.float32))
    before = histogram.exponent
    histogram.update_(np.array([100.0], np.float32))
    assert before is not None
    assert histogram.exponent == before + 7  # 0.75 < 1 = 2**0 and 100 < 128 = 2**7
    width = 2.0**histogram.exponent
    seen = histogram.centres[np.flatnonzero(histogram.counts)]
    np.testing.assert_allclose(seen, [0.75, 100.0], atol=width / 2)


def test_memory_does_not_depend_on_the_number_of_values() -> None:
    histogram = Histogram("t")
    for seed in range(5):
        histogram.update_(np.random.default_rng(seed).normal(size=10_000).astype(np.float32))
    assert histogram.counts.shape == (2 * BINS_PER_SIDE,)


def test_stride_thins_the_counts_but_not_the_extremes() -> None:
    histogram = Histogram("t")
    values = np.full(100, 1.0, np.float32)
    values[1] = 9.0
    histogram.update_(values, Sample(10))
    assert histogram.total == 10
    assert histogram.high == 9.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_with_the_tensor_named(bad: float) -> None:
    with pytest.raises(QuantizationError, match="'features'"):
        Histogram("features").update_(np.array([0.0, bad], np.float32))


def test_an_empty_batch_changes_nothing() -> None:
    histogram = Histogram("t")
    histogram.update_(np.zeros((0, 3), np.float32))
    assert histogram.total == 0
    assert histogram.exponent is None


def test_the_smallest_and_largest_floats_fit() -> None:
    histogram = Histogram("t")
    tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    histogram.update_(np.array([tiny, -huge], np.float32))
    assert histogram.counts.sum() == 2


def test_merging_with_nothing_keeps_both_sides() -> None:
    left, right = Histogram("t"), Histogram("t")
    left.update_(np.array([1.0, 2.0], np.float32))
    left.merge_(right)
    right.merge_(left)
    assert left.total == right.total == 2
    assert (right.low, right.high, right.exponent) == (left.low, left.high, left.exponent)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("sample", [Sample(), Sample(3), Sample(7, 2), Sample(3, 1, 5)])
def test_a_sample_is_weighted_by_the_channel_of_each_value(axis: int, sample: Sample) -> None:
    shape = (4, 5, 6)
    importance = ChannelImportance(axis, np.arange(10, 10 + shape[axis]))
    channel = np.indices(shape)[axis].reshape(-1)[sample.first :: sample.stride][:: sample.thinning]
    np.testing.assert_array_equal(importance.of_sample(shape, sample), 10 + channel)


def test_a_sample_that_carries_on_is_that_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    whole, parts = Histogram("t"), Histogram("t")
    whole.update_(values, Sample(7))
    for position, part in enumerate(values):
        parts.update_(part, Sample(7, -position * 50 % 7))
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert parts.total == 22  # 150 / 7, rounded up


def test_importance_must_fit_the_channels() -> None:
    with pytest.raises(QuantizationError, match=r"axis 1 of \[2, 3\] does not have 4 channels"):
        Histogram("t").update_(np.ones((2, 3), np.float32), importance=ChannelImportance(1, np.ones(4, np.int64)))


def test_without_importance_every_value_counts_once() -> None:
    histogram = Histogram("t")
    histogram.update_(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    np.testing.assert_array_equal(histogram.weighted, histogram.counts)
