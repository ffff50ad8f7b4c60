r"""The bootstrap, by counts.

A metric that follows from decisions depends on the images only through the counts of the cells (label, decision of
model 1, decision of model 2, ...), so a bootstrap resample of the images is one multinomial draw of those counts:
exactly the same distribution, without touching N images 2,000 times. Metrics of ranking resample the images themselves,
as weights.

Metrics that average over classes (balanced accuracy, AUROC, average precision) are resampled within each class, so that
no resample lacks one; the others over all images.
"""

from collections.abc import Sequence

import numpy as np

from edgeft.core.metrics import RANKING
from edgeft.verify.accuracy import Doubles, Floats, Ints, confusion_metric, decisions, weighted_ranking

_STRATIFIED = RANKING | {"balanced_accuracy"}
_CHUNK_WEIGHTS = 1 << 22
"""Sample weights held at once (32 MB as float64)."""


def resampled_metric(
    metric: str, labels: Ints, models: Sequence[Floats], n_classes: int, seed: int, n_resamples: int
) -> tuple[Doubles, ...]:
    """Return the metric of each model under the same resamples of the images.

    Args:
        metric: one of `accuracy.METRICS`.
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
    decided = [decisions(scores) for scores in models]
    if metric == "accuracy":  # right or wrong is all that counts: a thousand classes cost no more than two
        decided = [(each != labels).astype(np.int64) for each in decided]
        labels, n_classes = np.zeros_like(labels), 2
    cells, counts = np.unique(np.stack([labels, *decided], axis=1), axis=0, return_counts=True)
    drawn = _draw(counts, cells[:, 0] if metric in _STRATIFIED else np.zeros(len(cells), np.int64), rng, n_resamples)
    value = confusion_metric(metric)
    results = []
    for column in range(1, cells.shape[1]):
        place = np.zeros((len(cells), n_classes, n_classes))
        place[np.arange(len(cells)), cells[:, 0], cells[:, column]] = 1
        results.append(value(np.tensordot(drawn, place, axes=1)))
    return tuple(results)


def _resampled_ranking(
    metric: str, labels: Ints, models: Sequence[Floats], rng: np.random.Generator, n_resamples: int
) -> tuple[Doubles, ...]:
    ones = np.ones(len(labels), dtype=np.int64)
    chunk = max(1, _CHUNK_WEIGHTS // len(labels))
    parts: list[list[Doubles]] = [[] for _ in models]
    for start in range(0, n_resamples, chunk):
        weights = _draw(ones, labels, rng, min(chunk, n_resamples - start))
        for part, scores in zip(parts, models, strict=True):
            part.append(weighted_ranking(metric, labels, scores, weights))
    return tuple(np.concatenate(part) for part in parts)


def _draw(counts: Ints, strata: Ints, rng: np.random.Generator, n_resamples: int) -> Doubles:
    """Draw multinomial counts [R, M] that keep each stratum's total."""
    drawn = np.zeros((n_resamples, len(counts)))
    for stratum in np.unique(strata):
        inside = strata == stratum
        total = int(counts[inside].sum())
        drawn[:, inside] = rng.multinomial(total, counts[inside] / total, size=n_resamples)
    return drawn
