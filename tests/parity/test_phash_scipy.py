"""The perceptual hash and the look-alike search against scipy's DCT and NumPy's corrcoef."""

import numpy as np
from scipy.fft import dctn

from edgeft.data.hashing import near_pairs, perceptual_hash


def bits_by_scipy(grey: np.ndarray) -> np.ndarray:
    low = dctn(grey.astype(np.float64), type=2)[:8, :8]
    return (low > np.median(low)).ravel()


def bits_of(value: np.uint64) -> np.ndarray:
    return np.array([int(character) for character in f"{int(value):064b}"], dtype=bool)


def test_hash_equals_scipys_dct() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        grey = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        assert np.array_equal(bits_of(perceptual_hash(grey)), bits_by_scipy(grey))


def test_the_search_equals_a_plain_double_loop() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 200, (12, 32, 32))
    left = base[rng.integers(0, 12, 40)] + rng.integers(0, 30, (40, 32, 32))
    right = base[rng.integers(0, 12, 30)] + rng.integers(0, 30, (30, 32, 32))
    left, right = left.astype(np.uint8), right.astype(np.uint8)
    hashes = [np.array([perceptual_hash(grey) for grey in side], dtype=np.uint64) for side in (left, right)]
    expected = {}
    for i, first in enumerate(left):
        for j, second in enumerate(right):
            distance = int(np.sum(bits_by_scipy(first) != bits_by_scipy(second)))
            correlation = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
            if distance <= 10 and correlation >= 0.975:
                expected[i, j] = (distance, correlation)
    found = list(near_pairs((hashes[0], left), (hashes[1], right), hamming=10, correlation=0.975))
    assert len(expected) > 20
    assert {(pair.left, pair.right) for pair in found} == set(expected)
    for pair in found:
        distance, correlation = expected[pair.left, pair.right]
        assert pair.hamming == distance
        np.testing.assert_allclose(pair.correlation, correlation, atol=1e-5, rtol=0)  # float32 sums of 1024 terms


def test_flat_pictures_are_never_look_alikes() -> None:
    flat = np.full((2, 32, 32), 7, dtype=np.uint8)
    hashes = np.array([perceptual_hash(grey) for grey in flat], dtype=np.uint64)
    assert list(near_pairs((hashes, flat), (hashes, flat), hamming=64, correlation=0.5)) == []
