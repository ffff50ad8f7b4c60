"""Laws of streaming histograms: parts merge into the whole, in any order and any batching."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeft.quantize.observers import ChannelImportance, Histogram

BATCH = arrays(np.float32, st.integers(0, 40), elements=st.floats(-1e9, 1e9, width=32, allow_subnormal=False))
CHANNELS = ChannelImportance(0, np.array([1, 65_535, 7]))

# no deadline: a busy machine stops a process for longer than any example takes


def observed(*batches: np.ndarray) -> Histogram:
    """The histogram of the batches, each repeated in three channels of different importance."""
    histogram = Histogram("t")
    for batch in batches:
        histogram.update_(np.stack([batch] * 3), importance=CHANNELS)
    return histogram


def same(left: Histogram, right: Histogram) -> None:
    assert left.exponent == right.exponent
    assert (left.zeros, left.low, left.high) == (right.zeros, right.low, right.high)
    np.testing.assert_array_equal(left.counts, right.counts)
    np.testing.assert_array_equal(left.weighted, right.weighted)


@settings(deadline=None)
@given(batches=st.lists(BATCH, min_size=1, max_size=5), seed=st.integers(0, 100))
def test_order_and_batching_do_not_matter(batches: list[np.ndarray], seed: int) -> None:
    whole = observed(np.concatenate(batches))
    order = np.random.default_rng(seed).permutation(len(batches))
    same(observed(*batches), whole)
    same(observed(*(batches[i] for i in order)), whole)


@settings(deadline=None)
@given(left=BATCH, middle=BATCH, right=BATCH)
def test_merging_is_observing_the_union_and_is_associative(
    left: np.ndarray, middle: np.ndarray, right: np.ndarray
) -> None:
    whole = observed(left, middle, right)
    first = observed(left)
    first.merge_(observed(middle))
    first.merge_(observed(right))
    tail = observed(middle)
    tail.merge_(observed(right))
    second = observed(left)
    second.merge_(tail)
    same(first, whole)
    same(second, whole)


@settings(deadline=None)
@given(batch=BATCH)
def test_every_value_lies_in_its_bin(batch: np.ndarray) -> None:
    histogram = observed(batch)
    nonzero = np.sort(batch[batch != 0].astype(np.float64))
    assert histogram.counts.sum() == 3 * len(nonzero)
    np.testing.assert_array_equal(3 * histogram.weighted, 65_543 * histogram.counts)
    if histogram.exponent is not None:
        centres = np.repeat(histogram.centres, histogram.counts)
        np.testing.assert_allclose(centres, np.repeat(nonzero, 3), atol=2.0**histogram.exponent / 2, rtol=0)
