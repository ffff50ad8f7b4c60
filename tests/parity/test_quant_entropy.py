"""The entropy range against the algorithm as published, with scipy, and against onnxruntime's calibrator."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from onnxruntime.quantization import calibrate
from scipy.stats import entropy

from edgeft.quantize.entropy import divergences
from edgeft.quantize.observers import Histogram
from edgeft.quantize.ranges import PERCENTILE, Grid, entropy_range, percentile_range

U8, S8 = Grid(255, symmetric=False), Grid(254, symmetric=True)


def published(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    """Migacz 2017, slides 38 to 40, bin by bin: P with its outliers, quantized, expanded over P's non-empty bins."""
    reference = counts[start:stop].astype(float)
    reference[0] += counts[:start].sum()
    reference[-1] += counts[stop:].sum()
    part = np.arange(stop - start) * levels // (stop - start)
    kept = np.bincount(part, counts[start:stop], levels)
    filled = np.bincount(part, reference > 0, levels)
    expanded = np.where(reference > 0, kept[part] / np.maximum(filled[part], 1), 0)
    return float(entropy(reference, expanded))


def histogram_counts(seed: int, bins: int, *, sparse: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = np.histogram(rng.standard_t(3, 20_000), bins=bins, range=(-12, 12))[0]
    return counts * (rng.random(bins) < 0.7) if sparse else counts + 1


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_divergences_are_the_published_ones(seed: int, *, sparse: bool) -> None:
    counts = histogram_counts(seed, 200, sparse=sparse)
    starts, stops = np.array([100, 90, 60, 0, 3, 80]), np.array([140, 110, 161, 200, 197, 200])
    for levels in (1, 7, 16):
        found = divergences(counts, starts, stops, levels)
        expected = [published(counts, a, b, levels) for a, b in zip(starts, stops, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-12)  # prefix sums cancel a few digits


def test_a_window_whose_edge_has_no_counts_of_its_own_is_infinitely_bad() -> None:
    counts = np.array([5, 5, 0, 0, 9])
    assert divergences(counts, np.array([0]), np.array([4]), 4) == [np.inf]
    assert published(counts, 0, 4, 4) == np.inf


def brute_force(values: np.ndarray, *, symmetric: bool) -> float:
    """The clip with the least published divergence, on bins counted anew from the values."""
    x = np.abs(values) if symmetric else values
    width = 2.0 ** (np.ceil(np.log2(np.abs(values).max())) - 11)  # 1,024 to 2,048 bins up to the largest magnitude
    first, last = int(np.floor(x.min() / width)), int(np.floor(x.max() / width))
    first = min(first, 0)
    counts = np.zeros(last - first + 1, np.int64)
    np.add.at(counts, np.floor(x / width).astype(np.int64) - first, x != 0)
    levels = 128 if symmetric else 256
    best = (np.inf, 0)
    for clip in range(1, max(-first, last + 1) + 1):
        start, stop = max(-clip, first) - first, min(clip, last + 1) - first
        if stop - start >= levels or clip == max(-first, last + 1):
            best = min(best, (published(counts, start, stop, levels), -clip))
    return -best[1] * width


@pytest.mark.parametrize("kind", ["two-sided", "one-sided", "shifted"])
def test_the_range_is_the_best_of_all_clips(kind: str) -> None:
    values = np.random.default_rng(3).standard_t(4, 30_000).astype(np.float32)
    if kind == "one-sided":
        values = np.maximum(values, 0)
    if kind == "shifted":
        values += np.float32(3)
    histogram = Histogram("t")
    histogram.update_(values)
    clip = brute_force(values, symmetric=False)
    assert entropy_range(histogram, U8) == (max(-clip, min(values.min(), 0.0)), min(clip, values.max()))
    bound = min(brute_force(values, symmetric=True), float(np.abs(values).max()))
    assert entropy_range(histogram, S8) == (-bound, bound)


def test_onnxruntimes_divergence_is_the_same_where_its_bins_divide_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 2 i + 1 bins divide into an odd number of levels now and then; large counts hide its truncation."""
    levels, bins = 15, 255
    counts = histogram_counts(8, bins, sparse=False) * 100_000
    edges = np.linspace(-1, 1, bins + 1, dtype=np.float32)
    recorded = []

    def spy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        recorded.append(calibrate_entropy(p, q))
        return recorded[-1]

    calibrate_entropy = calibrate.entropy
    monkeypatch.setattr(calibrate, "entropy", spy)
    collector = calibrate.HistogramCollector("entropy", True, bins, levels, None, None)
    collector.get_entropy_threshold((counts, edges, edges[0], edges[-1]), levels)
    halves = np.arange(levels // 2, bins // 2 + 1)
    even = (2 * halves + 1) % levels == 0
    found = divergences(counts, bins // 2 - halves[even], bins // 2 + halves[even] + 1, levels)
    assert even.sum() == 9
    np.testing.assert_allclose(found, np.array(recorded)[even], rtol=1e-3, atol=1e-6)  # it computes in float32


def test_percentiles_are_onnxruntimes_to_a_bin() -> None:
    values = np.random.default_rng(9).standard_t(4, 400_000).astype(np.float32)
    histogram = Histogram("t")
    histogram.update_(values)
    bins = len(histogram.counts)
    edges = ((np.arange(bins + 1) - bins // 2) * histogram.width).astype(np.float32)
    for grid in (U8, S8):
        collector = calibrate.HistogramCollector("percentile", grid.symmetric, bins, None, PERCENTILE, None)
        low, high = values.min(), values.max()
        used = histogram.counts, edges
        if grid.symmetric:  # its symmetric histogram is that of |x|
            used = histogram.counts[bins // 2 :] + histogram.counts[: bins // 2][::-1], edges[bins // 2 :]
            low = np.float32(-np.abs(values).max())
        collector.histogram_dict = {"t": (*used, low, high)}
        with redirect_stdout(io.StringIO()):
            expected = collector.compute_percentile()["t"][:2]
        np.testing.assert_allclose(percentile_range(histogram, grid), expected, atol=histogram.width * 1.001, rtol=0)
