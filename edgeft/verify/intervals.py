"""The interval of one metric of one model.

    accuracy             Wilson's score interval
    balanced accuracy    Wilson's of each class, added by squares (MOVER, Zou & Donner 2008)
    the others           bootstrap

Where no resample differs (a model without an error) the bootstrap would claim certainty: the interval is then as wide
as that of the balanced accuracy of a model without an error.
"""

import math

import numpy as np

from edgeft.verify.accuracy import Floats, Ints, check_scores, decisions, metric_value
from edgeft.verify.distributions import wilson
from edgeft.verify.resampling import RESAMPLES, percentiles, resampled_metric


def metric_interval(
    metric: str,
    labels: Ints,
    scores: Floats,
    n_classes: int,
    seed: int,
    *,
    n_resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the two-sided interval of `metric`.

    Args:
        metric: one of `METRICS`.
        labels: int64 [N].
        scores: float [N, K].
        n_classes: K.
        seed: of the resampling.
        n_resamples: bootstrap resamples.
        confidence: two-sided.

    Raises:
        UsageError: the metric is unknown.
        DataError: the set is empty, or shapes or classes do not fit.
    """
    check_scores(metric, labels, scores, n_classes)
    right = decisions(scores) == labels
    if metric == "accuracy":
        return wilson(int(right.sum()), len(labels), confidence)
    support = np.bincount(labels, minlength=n_classes)
    if metric == "balanced_accuracy":
        return _mean_rate(np.bincount(labels[right], minlength=n_classes), support, confidence)
    value = metric_value(metric, labels, scores, n_classes)
    (values,) = resampled_metric(metric, labels, (scores,), n_classes, seed, n_resamples)
    low, high = percentiles(labels, values, confidence)
    if low == high:
        unseen = 1 - _mean_rate(support, support, confidence)[0]
        low, high = max(0.0, value - unseen), min(1.0, value + unseen)
    return min(low, value), max(high, value)


def _mean_rate(counts: Ints, totals: Ints, confidence: float) -> tuple[float, float]:
    """Return the interval of the mean over classes of the rates counts / totals, each [K]."""
    rates = counts / totals
    ends = np.array([wilson(int(k), int(n), confidence) for k, n in zip(counts, totals, strict=True)])
    below, above = rates - ends[:, 0], ends[:, 1] - rates
    centre, classes = float(rates.mean()), len(totals)
    return centre - math.hypot(*below) / classes, centre + math.hypot(*above) / classes
