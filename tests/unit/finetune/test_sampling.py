import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeft.finetune.sampling import _PART_TOKENS, alike, balanced, batches, mixed, shuffled

ROWS = st.integers(1, 200).map(lambda n: np.arange(n, dtype=np.int64) * 3)


@given(ROWS, st.integers(0, 9))
def test_shuffling_keeps_every_row(rows: np.ndarray, seed: int) -> None:
    assert sorted(shuffled(rows, seed)) == sorted(rows)
    assert (shuffled(rows, seed) == shuffled(rows, seed)).all()


@given(ROWS, st.integers(1, 64))
def test_batches_cover_the_rows_in_order_and_are_equal_but_for_one(rows: np.ndarray, size: int) -> None:
    cut = batches(rows, size)
    lengths = {len(batch) for batch in cut}
    assert (np.concatenate(cut) == rows).all()
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(cut) == -(-len(rows) // size)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(0, 9))
def test_balanced_draws_every_class_equally_often(labels: list[int], seed: int) -> None:
    rows = np.arange(len(labels), dtype=np.int64) + 10
    drawn = balanced(rows, np.array(labels), seed)
    present = sorted(set(labels))
    counts = [int((np.array(labels)[drawn - 10] == label).sum()) for label in present]
    assert len(drawn) == len(rows)
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 20), st.integers(20, 60))
def test_balanced_repeats_a_small_class_evenly(few: int, many: int) -> None:
    labels = np.array([0] * few + [1] * many)
    drawn = balanced(np.arange(few + many), labels, seed=0)
    times = np.bincount(drawn[drawn < few], minlength=few)
    assert times.max() - times.min() <= 1
    assert np.bincount(drawn[drawn >= few]).max() == 1


@given(st.lists(st.integers(0, 2), min_size=9, max_size=90), st.floats(0.05, 0.9), st.integers(0, 9))
def test_mixed_draws_each_kind_its_share(kinds: list[int], share: float, seed: int) -> None:
    kinds = [0, 1, 2, *kinds]
    rows = np.arange(len(kinds), dtype=np.int64) + 10
    shares = [share, (1 - share) / 2, (1 - share) / 2]
    drawn = mixed(rows, np.array(kinds), shares, seed)
    assert len(drawn) == len(rows)
    counts = np.bincount(np.array(kinds)[drawn - 10], minlength=3)
    assert np.abs(counts - np.array(shares) * len(rows)).max() <= 1
    assert (mixed(rows, np.array(kinds), shares, seed) == drawn).all()


def partitions(n: int) -> list[list[int]]:
    """Return the sizes of all ways to cut n things in a row."""
    if n == 0:
        return [[]]
    return [[first, *rest] for first in range(1, n + 1) for rest in partitions(n - first)]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9))
def test_alike_lengths_take_the_least_time_of_all_ways_to_cut_them(tokens: list[int]) -> None:
    rows, lengths = np.arange(len(tokens)) + 7, np.array(tokens)
    parts = alike(rows, lengths)
    assert sorted(np.concatenate(parts)) == sorted(rows)

    def cost(each: list[np.ndarray]) -> int:
        return sum(len(part) * int(part.max()) + _PART_TOKENS for part in each)

    ways = [np.split(np.sort(lengths), np.cumsum(sizes)[:-1]) for sizes in partitions(len(tokens))]
    assert cost([lengths[part - 7] for part in parts]) == min(cost(way) for way in ways)


def test_equal_lengths_stay_together() -> None:
    rows = np.arange(32)
    (part,) = alike(rows, np.full(32, 50))
    assert (part == rows).all()
