"""Laws of the division into splits, for any labels, groups and shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeft.data.split import divide

SHARES = (0.6, 0.2, 0.2)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[str], int]:
    n = draw(st.integers(3, 120))
    classes = draw(st.integers(1, 4))
    groups = draw(st.integers(1, n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, classes, n).astype(np.int64)
    return labels, [f"g{g}" for g in rng.integers(0, groups, n)], draw(st.integers(0, 2**32 - 1))


@given(problems())
@settings(deadline=None, max_examples=60)
def test_a_group_stands_in_one_part_and_equal_seeds_give_equal_parts(
    problem: tuple[np.ndarray, list[str], int],
) -> None:
    labels, groups, seed = problem
    parts = divide(labels, groups, SHARES, seed)
    assert parts.shape == labels.shape
    assert set(parts.tolist()) <= {0, 1, 2}
    for group in set(groups):
        assert len({int(part) for part, name in zip(parts, groups, strict=True) if name == group}) == 1
    assert np.array_equal(parts, divide(labels, groups, SHARES, seed))


@given(st.lists(st.integers(3, 60), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_single_images_are_cut_to_within_one_image_of_each_class(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    parts = divide(labels, [str(i) for i in range(len(labels))], SHARES, seed)
    for label, size in enumerate(sizes):
        got = np.bincount(parts[labels == label], minlength=3)
        assert got.min() >= 1
        assert np.abs(got - size * np.array(SHARES)).max() <= 1 + 1e-9


@given(st.integers(10, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_equal_groups_are_cut_to_within_one_group(groups: int, size: int, seed: int) -> None:
    """Groups of one size and one mixture can meet the shares up to one group; so the division must."""
    labels = np.tile(np.arange(size) % 2, groups).astype(np.int64)
    names = [f"{i // size:03d}" for i in range(groups * size)]
    parts = divide(labels, names, SHARES, seed)
    in_groups = np.bincount(parts[::size], minlength=3)
    assert np.abs(in_groups - groups * np.array(SHARES)).max() <= 1 + 1e-9


@given(st.integers(3, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_rare_class_in_three_groups_reaches_every_part(rare: int, seed: int) -> None:
    """40 groups of 10 images of class 0, one image of class 1 in `rare` of them."""
    labels = np.concatenate([np.zeros(400, dtype=np.int64), np.ones(rare, dtype=np.int64)])
    groups = [f"g{i // 10}" for i in range(400)] + [f"g{i}" for i in range(rare)]
    parts = divide(labels, groups, SHARES, seed)
    assert set(parts[labels == 1].tolist()) == {0, 1, 2}


def test_another_seed_gives_another_division() -> None:
    labels = np.tile([0, 1], 100).astype(np.int64)
    groups = [str(i // 4) for i in range(200)]
    divisions = {divide(labels, groups, SHARES, seed).tobytes() for seed in range(8)}
    assert len(divisions) == 8


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.25, 0.25, 0.25, 0.25)])
def test_folds_are_equal_parts(shares: tuple[float, ...]) -> None:
    labels = np.tile([0, 0, 1], 80).astype(np.int64)
    parts = divide(labels, [str(i // 3) for i in range(240)], shares, 0)
    assert np.bincount(parts).tolist() == [240 // len(shares)] * len(shares)
