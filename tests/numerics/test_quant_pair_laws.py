"""The pair rule against an emulation of kernels that add two neighbours' products in saturating int16."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeft.quantize.pair_rule import repair, unsafe_pairs
from edgeft.quantize.weights import search_scales

ROWS = arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-127, 127))


def saturating_sums(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return x [P, K] uint8 times weights [O, K] int8 as vpmaddubsw + vpmaddwd compute it: int16 pairs, int32 sums."""
    columns = x.shape[1] + x.shape[1] % 2
    left, right = np.zeros((len(x), columns), np.int32), np.zeros((len(weights), columns), np.int32)
    left[:, : x.shape[1]], right[:, : x.shape[1]] = x, weights
    products = left[:, None, :] * right[None, :, :]
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(axis=-1)
    return np.clip(pairs, -32768, 32767).sum(axis=-1)


def worst_inputs(weights: np.ndarray) -> np.ndarray:
    """For each row, the activations that drive its pairs furthest up, and furthest down: uint8 [2 * O, K]."""
    return np.concatenate([np.where(weights > 0, 255, 0), np.where(weights < 0, 255, 0)]).astype(np.uint8)


@given(weights=ROWS, seed=st.integers(0, 1000))
def test_unsafe_pairs_are_zero_exactly_when_no_activation_can_saturate(weights: np.ndarray, seed: int) -> None:
    x = worst_inputs(weights)
    exact = x.astype(np.int32) @ weights.T.astype(np.int32)
    saturates = bool((saturating_sums(x, weights) != exact).any())
    assert saturates == (unsafe_pairs(weights) > 0)
    if not saturates:
        other = np.random.default_rng(seed).integers(0, 256, (50, weights.shape[1])).astype(np.uint8)
        np.testing.assert_array_equal(
            saturating_sums(other, weights), other.astype(np.int32) @ weights.T.astype(np.int32)
        )


@given(
    target=arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-127, 127)),
    importance=st.floats(1e-6, 1e6),
)
def test_repaired_weights_never_saturate(target: np.ndarray, importance: float) -> None:
    rounded = np.clip(np.rint(target), -127, 127)
    repaired = repair(rounded, target, np.full(target.shape[-1], importance))
    assert unsafe_pairs(repaired) == 0
    assert (np.abs(repaired) <= 127).all()
    assert (np.sign(repaired) * np.sign(rounded) >= 0).all()
    np.testing.assert_array_equal(repair(repaired, target, np.ones(target.shape[-1])), repaired)


@given(seed=st.integers(0, 10_000), columns=st.integers(2, 64))
def test_searched_weights_give_exact_sums_for_any_activations(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_t(3, (1, 4, columns))
    found = search_scales(matrix, rng.uniform(0, 1, (1, columns)), np.zeros((1, 4)), pair_safe=True, search=True)
    weights = found.values[0]
    x = np.concatenate([worst_inputs(weights), rng.integers(0, 256, (50, columns)).astype(np.uint8)])
    np.testing.assert_array_equal(saturating_sums(x, weights), x.astype(np.int32) @ weights.T.astype(np.int32))


def test_full_range_weights_do_saturate() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(64, 256))
    weights = np.rint(matrix / np.abs(matrix).max(axis=1, keepdims=True) * 127).astype(np.int8)
    x = rng.integers(0, 256, (32, 256)).astype(np.uint8)
    assert unsafe_pairs(weights) > 0
    assert (saturating_sums(x, weights) != x.astype(np.int32) @ weights.T.astype(np.int32)).any()
