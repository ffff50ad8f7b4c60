"""The classification report of one model on the test split, as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core.metrics import METRICS
from edgeft.verify.accuracy import calibration_error, confusion, metric_value, per_class
from edgeft.verify.curves import pr_curve, roc_curve, thin
from edgeft.verify.decision import HIGHEST, Decision
from edgeft.verify.distributions import wilson
from edgeft.verify.inspection import inspection
from edgeft.verify.intervals import metric_interval
from edgeft.verify.slices import accuracy_gap

_MOST_POINTS = 400
_BINARY = 2


def block(  # noqa: PLR0913 - one model, one truth, how it decides, and what is drawn
    labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    classes: tuple[str, ...],
    seed: int,
    resamples: int,
    *,
    positive: int | None,
    ok: int | None = None,
    rule: Decision = HIGHEST,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return metrics with intervals, per-class numbers, the confusion matrix and curves.

    Args:
        labels: int64 [N], every class present.
        scores: float32 [N, K].
        classes: names, in order.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        positive: the class whose curves are drawn where there are two; None draws class 1.
        ok: the class of good parts; None where the task has none.
        rule: how the model decides.
        slices: by name, what each image belongs to.
    """
    k = len(classes)

    def value(metric: str) -> float:
        return metric_value(metric, labels, rule.scores_for(metric, scores), k)

    def interval(metric: str) -> list[float]:
        decided = rule.scores_for(metric, scores)
        return list(metric_interval(metric, labels, decided, k, seed, n_resamples=resamples))

    matrix = confusion(labels, rule.decided(scores), k)
    reviewed = np.bincount(labels[rule.review(scores)], minlength=k).tolist()
    by_slice = {name: _slice(labels, rule, scores, np.asarray(values), ok) for name, values in (slices or {}).items()}
    drawn = [1 if positive is None else positive] if k == _BINARY else range(k)
    return {
        "n": len(labels),
        **{name: value(name) for name in METRICS},
        **{f"{name}_interval": interval(name) for name in METRICS},
        "calibration_error": calibration_error(labels, scores),
        "per_class": [{"name": name, **asdict(row)} for name, row in zip(classes, per_class(matrix), strict=True)],
        "confusion": matrix.tolist(),
        "inspection": None if ok is None else _inspection(matrix.tolist(), classes, ok, reviewed),
        "slices": by_slice,
        "roc": [_roc(labels == one, scores[:, one], classes[one]) for one in drawn],
        "pr": [_pr(labels == one, scores[:, one], classes[one]) for one in drawn],
    }


def _inspection(matrix: list[list[int]], classes: tuple[str, ...], ok: int, reviewed: list[int]) -> dict[str, Any]:
    found = inspection(matrix, ok, reviewed)
    return {
        "ok": classes[ok],
        "escape": asdict(found.escape),
        "overkill": asdict(found.overkill),
        "escape_by_class": {classes[index]: asdict(each) for index, each in found.by_class.items()},
        "review": asdict(found.review),
        "review_good": asdict(found.review_good),
        "reviewed": reviewed,
    }


def _slice(
    labels: npt.NDArray[np.int64],
    rule: Decision,
    scores: npt.NDArray[np.float32],
    values: npt.NDArray[np.str_],
    ok: int | None,
) -> dict[str, Any]:
    """Return accuracy by value of a slice, and the gap between the best and the worst."""
    decided, k = rule.decided(scores), scores.shape[1]
    right = decided == labels
    rows = []
    for value in np.unique(values).tolist():
        inside = values == value
        n, hits = int(inside.sum()), int(right[inside].sum())
        row = {"value": value, "n": n, "accuracy": hits / n, "accuracy_interval": list(wilson(hits, n))}
        if ok is not None:
            reviewed = np.bincount(labels[inside & rule.review(scores)], minlength=k).tolist()
            found = inspection(confusion(labels[inside], decided[inside], k).tolist(), ok, reviewed)
            row |= {"escape": asdict(found.escape), "overkill": asdict(found.overkill)}
        rows.append(row)
    gap = accuracy_gap(right, values.tolist())
    return {"values": rows, "gap": None if gap is None else asdict(gap)}


def _roc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], name: str) -> dict[str, Any]:
    curve = roc_curve(positive, score)
    kept = thin(len(curve.fpr), _MOST_POINTS)
    return {"class": name, "fpr": curve.fpr[kept].tolist(), "tpr": curve.tpr[kept].tolist()}


def _pr(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], name: str) -> dict[str, Any]:
    curve = pr_curve(positive, score)
    kept = thin(len(curve.recall), _MOST_POINTS)
    return {"class": name, "recall": curve.recall[kept].tolist(), "precision": curve.precision[kept].tolist()}
