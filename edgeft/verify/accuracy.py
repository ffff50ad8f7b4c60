r"""Classification metrics from scores, in numpy alone; each is held against scikit-learn in tests/parity.

A decision is `argmax` over the scores (the first of equal ones). With C the confusion matrix (rows truth, columns
decisions), recall_k = C_kk / sum_j C_kj, precision_k = C_kk / sum_i C_ik, F1 their harmonic mean; 0/0 counts as 0.
Balanced accuracy is the mean recall, macro F1 the mean F1. AUROC is the chance that a positive scores above a negative,
ties counting half; with more than two classes it is the mean over classes of one against the rest. Average precision
is sum_n (R_n - R_{n-1}) P_n over falling thresholds, the mean over all classes of one against the rest, so that it does
not hang on the order of two classes.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError, UsageError
from edgeft.core.metrics import METRICS, RANKING

Floats: TypeAlias = npt.NDArray[np.floating]
Doubles: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
BINARY = 2


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How one class fares; 0/0 counts as 0."""

    precision: float
    recall: float
    f1: float
    support: int


def decisions(scores: Floats) -> Ints:
    """Return the decided class of each row of `scores` [N, K]: int64 [N]."""
    return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)


def confusion(labels: Ints, decided: Ints, n_classes: int) -> Ints:
    """Return the confusion matrix int64 [K, K]: rows are labels, columns decisions.

    Raises:
        DataError: a label or decision is outside 0..K-1, or the two differ in length.
    """
    if labels.shape != decided.shape:
        raise DataError(f"{labels.shape[0]} labels but {decided.shape[0]} decisions")
    both = np.concatenate([labels, decided])
    if both.size and (both.min() < 0 or both.max() >= n_classes):
        raise DataError(f"class indices {both.min()}..{both.max()}, expected 0..{n_classes - 1}")
    cells = np.bincount(labels * n_classes + decided, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def per_class(matrix: Ints) -> tuple[ClassScores, ...]:
    """Return precision, recall, F1 and support of each class of a confusion matrix [K, K]."""
    hits = np.diagonal(matrix).astype(np.float64)
    support, decided = matrix.sum(axis=1), matrix.sum(axis=0)
    recall, precision = ratio(hits, support), ratio(hits, decided)
    f1 = ratio(2 * hits, support + decided)
    return tuple(
        ClassScores(float(precision[k]), float(recall[k]), float(f1[k]), int(support[k])) for k in range(len(matrix))
    )


def metric_value(metric: str, labels: Ints, scores: Floats, n_classes: int) -> float:
    """Return one metric over a set.

    Args:
        metric: one of `METRICS`.
        labels: int64 [N], 0..K-1.
        scores: float [N, K].
        n_classes: K.

    Raises:
        UsageError: the metric is unknown.
        DataError: the set is empty, or shapes or classes do not fit.
    """
    check_scores(metric, labels, scores, n_classes)
    if metric in RANKING:
        return float(weighted_ranking(metric, labels, scores, np.ones((1, len(labels))))[0])
    matrix = confusion(labels, decisions(scores), n_classes)
    if metric == "accuracy":
        return float(np.trace(matrix) / len(labels))
    return float(np.mean([row.f1 if metric == "macro_f1" else row.recall for row in per_class(matrix)]))


def weighted_ranking(metric: str, labels: Ints, scores: Floats, weights: Doubles) -> Doubles:
    """Return a metric of ranking under each row of sample weights.

    Args:
        metric: one of `RANKING`.
        labels: int64 [N].
        scores: float [N, K].
        weights: float64 [R, N], 0 or more; a bootstrap resample is a row of counts.

    Returns:
        float64 [R], the mean over classes of one against the rest; AUROC of two classes is that of class 1. NaN where
        a resample lacks positives or negatives.
    """
    k = scores.shape[1]
    classes, of_one = ([1] if k == BINARY else range(k), _auroc) if metric == "auroc" else (range(k), _precision)
    parts = [of_one(*_tied(labels == one, scores[:, one], weights)) for one in classes]
    return np.asarray(np.mean(parts, axis=0))


def calibration_error(labels: Ints, scores: Floats, n_bins: int = 15) -> float:
    """Return the expected calibration error: how far confidence and accuracy part, weighted over bins of confidence.

    Confidence is the highest score; bins are `n_bins` equal parts of (0, 1], closed above. Source: Guo et al. 2017.

    Args:
        labels: int64 [N].
        scores: float [N, K], probabilities.
        n_bins: how many.

    Raises:
        DataError: a score is outside 0..1.
    """
    if scores.min() < 0 or scores.max() > 1:
        raise DataError(f"scores {scores.min():g}..{scores.max():g} are no probabilities, so they have no calibration")
    confidence = scores.max(axis=1).astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], confidence, side="left")
    surplus = np.bincount(place, weights=confidence - (decisions(scores) == labels), minlength=n_bins)
    return float(np.abs(surplus).sum() / len(labels))


def check_scores(metric: str, labels: Ints, scores: Floats, n_classes: int) -> None:
    """Refuse what no metric can be computed on.

    Raises:
        UsageError: the metric is unknown.
        DataError: the set is empty, scores are not finite, or shapes or classes do not fit.
    """
    if metric not in METRICS:
        raise UsageError(f"no metric is called {metric!r}", hint=f"verify.accuracy.metric: one of {', '.join(METRICS)}")
    if labels.ndim != 1 or scores.shape != (len(labels), n_classes):
        raise DataError(f"scores of shape {scores.shape}, expected ({len(labels)}, {n_classes})")
    if not len(labels):
        raise DataError(f"{metric}: nothing to measure on")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise DataError(f"class indices {labels.min()}..{labels.max()}, expected 0..{n_classes - 1}")
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        raise DataError(f"{metric}: {len(rows)} rows of scores are not finite, the first is row {rows[0]}")
    if metric != "accuracy":
        absent = sorted(set(range(n_classes)) - set(np.unique(labels).tolist()))
        if absent:
            raise DataError(f"{metric}: no row has the class index {absent[0]}", hint="every split needs every class")


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Doubles:
    """Return numerator / denominator with 0/0 = 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    quotient: Doubles = np.zeros(np.broadcast_shapes(top.shape, bottom.shape))
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    return quotient


def _tied(positive: npt.NDArray[np.bool_], score: Floats, weights: Doubles) -> tuple[Doubles, Doubles]:
    """Return the weights of positives and of negatives by distinct score, ascending: each [R, scores]."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    sorted_weights, sorted_positive = weights[:, order], positive[order]
    up = np.add.reduceat(sorted_weights * sorted_positive, starts, axis=1)
    return up, np.add.reduceat(sorted_weights * ~sorted_positive, starts, axis=1)


def _auroc(up: Doubles, down: Doubles) -> Doubles:
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    wins = (up * (below + down / 2)).sum(axis=1)
    area = np.full(len(up), np.nan)
    np.divide(wins, pairs, out=area, where=pairs > 0)
    return area


def _precision(up: Doubles, down: Doubles) -> Doubles:
    up, down = up[:, ::-1], down[:, ::-1]  # from the strictest threshold
    hits = np.cumsum(up, axis=1)
    area = (up * ratio(hits, hits + np.cumsum(down, axis=1))).sum(axis=1)
    found = np.full(len(up), np.nan)
    np.divide(area, hits[:, -1], out=found, where=(hits[:, -1] > 0) & (down.sum(axis=1) > 0))
    return found
