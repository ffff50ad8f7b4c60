r"""The bootstrap of macro F1 and of the metrics of ranking.

Macro F1 depends on the images only through the counts of the cells (label, decision of model 1, decision of model 2,
...), so a resample of the images is one multinomial draw of those counts: exactly the same distribution, without
touching N images 2,000 times. Metrics of ranking resample the images themselves, as weights, within each class, so that
no resample lacks one.

A resample of n images spreads as n - 1 would, so plain percentiles cover too seldom. Hesterberg's expanded ones (The
American Statistician 69, 2015) do not: with the tail a, they are taken at

    a' = Phi(sqrt(n / (n - 1)) t_{n-1}(a))        n of the smallest class
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from edgeft.core.metrics import RANKING
from edgeft.verify.accuracy import Doubles, Floats, Ints, decisions, ratio, weighted_ranking
from edgeft.verify.distributions import t_quantile

RESAMPLES = 2000
_CHUNK_WEIGHTS = 1 << 22
"""Sample weights held at once (32 MB as float64)."""


def resampled_metric(
    metric: str, labels: Ints, models: Sequence[Floats], n_classes: int, seed: int, n_resamples: int
) -> tuple[Doubles, ...]:
    """Return the metric of each model under the same resamples of the images.

    Args:
        metric: macro_f1, or one of `core.metrics.RANKING`.
        labels: int64 [N].
        models: scores float [N, K] of each model, on the same images.
        n_classes: K.
        seed: of the resampling.
        n_resamples: R.

    Returns:
        One float64 [R] per model, paired: entry r of each is on the same resample.
    """
    rng = np.random.default_rng(seed)
    if metric in RANKING:
        return _resampled_ranking(metric, labels, models, rng, n_resamples)
    cells, counts = np.unique(
        np.stack([labels, *(decisions(scores) for scores in models)], axis=1), axis=0, return_counts=True
    )
    drawn = rng.multinomial(len(labels), counts / len(labels), size=n_resamples).astype(np.float64)
    classes = np.arange(n_classes)
    truth = cells[:, :1] == classes
    results = []
    for column in range(1, cells.shape[1]):
        decided = cells[:, column : column + 1] == classes
        f1 = ratio(2 * (drawn @ (truth & decided)), drawn @ truth + drawn @ decided)
        results.append(f1.mean(axis=1))
    return tuple(results)


def percentiles(labels: Ints, values: Doubles, confidence: float) -> tuple[float, float]:
    """Return the expanded percentiles of `values` [R], of resamples of images with `labels` [N]."""
    n = max(2, int(np.bincount(labels).min()))
    tail = NormalDist().cdf(math.sqrt(n / (n - 1)) * t_quantile((1 - confidence) / 2, n - 1))
    low, high = np.quantile(values, [tail, 1 - tail], method="weibull")
    return float(low), float(high)


def _resampled_ranking(
    metric: str, labels: Ints, models: Sequence[Floats], rng: np.random.Generator, n_resamples: int
) -> tuple[Doubles, ...]:
    chunk = max(1, _CHUNK_WEIGHTS // len(labels))
    parts: list[list[Doubles]] = [[] for _ in models]
    for start in range(0, n_resamples, chunk):
        weights = np.zeros((min(chunk, n_resamples - start), len(labels)))
        for one in np.unique(labels):
            inside = labels == one
            n = int(inside.sum())
            weights[:, inside] = rng.multinomial(n, np.full(n, 1 / n), size=len(weights))
        for part, scores in zip(parts, models, strict=True):
            part.append(weighted_ranking(metric, labels, scores, weights))
    return tuple(np.concatenate(part) for part in parts)
