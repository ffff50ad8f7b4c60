"""The classification report of one model on the test split, as JSON values."""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.verify.accuracy import confusion, decisions, metric_interval, metric_value, per_class
from edgeft.verify.curves import pr_curve, roc_curve, thin
from edgeft.verify.inspection import inspection

_MOST_POINTS = 400
_BINARY = 2


def block(
    labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    classes: tuple[str, ...],
    seed: int,
    resamples: int,
    positive: int | None,
    ok: int | None = None,
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
    """
    k = len(classes)

    def value(metric: str) -> float:
        return metric_value(metric, labels, scores, k)

    def interval(metric: str) -> list[float]:
        return list(metric_interval(metric, labels, scores, k, seed, n_resamples=resamples))

    matrix = confusion(labels, decisions(scores), k)
    drawn = [1 if positive is None else positive] if k == _BINARY else range(k)
    return {
        "n": len(labels),
        **{name: value(name) for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")},
        **{f"{name}_interval": interval(name) for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")},
        "per_class": [{"name": name, **asdict(row)} for name, row in zip(classes, per_class(matrix), strict=True)],
        "confusion": matrix.tolist(),
        "inspection": None if ok is None else _inspection(matrix.tolist(), classes, ok),
        "roc": [_roc(labels == one, scores[:, one], classes[one]) for one in drawn],
        "pr": [_pr(labels == one, scores[:, one], classes[one]) for one in drawn],
    }


def _inspection(matrix: list[list[int]], classes: tuple[str, ...], ok: int) -> dict[str, Any]:
    found = inspection(matrix, ok)
    return {
        "ok": classes[ok],
        "escape": asdict(found.escape),
        "overkill": asdict(found.overkill),
        "escape_by_class": {classes[index]: asdict(each) for index, each in found.by_class.items()},
    }


def _roc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], name: str) -> dict[str, Any]:
    curve = roc_curve(positive, score)
    kept = thin(len(curve.fpr), _MOST_POINTS)
    return {"class": name, "fpr": curve.fpr[kept].tolist(), "tpr": curve.tpr[kept].tolist()}


def _pr(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], name: str) -> dict[str, Any]:
    curve = pr_curve(positive, score)
    kept = thin(len(curve.recall), _MOST_POINTS)
    return {"class": name, "recall": curve.recall[kept].tolist(), "precision": curve.precision[kept].tolist()}
