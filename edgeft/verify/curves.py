"""ROC and precision-recall curves of one class against the rest, in numpy alone.

One point per distinct score, from the strictest threshold to the loosest; points on a straight line of the ROC are left
out (they draw nothing). `thin` bounds the number of points for a report.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError
from edgeft.verify.accuracy import Doubles, Floats

Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RocCurve:
    """False positive rate and true positive rate, each float64 [P], from (0, 0) to (1, 1)."""

    fpr: Doubles
    tpr: Doubles


@dataclass(frozen=True, slots=True)
class PrCurve:
    """Recall, falling to 0, and precision, ending at 1: each float64 [P]."""

    recall: Doubles
    precision: Doubles


def roc_curve(positive: Flags, score: Floats) -> RocCurve:
    """Return the ROC curve.

    Args:
        positive: bool [N].
        score: float [N], higher means more likely positive.

    Raises:
        DataError: positives or negatives are absent.
    """
    hits, alarms = _cumulated(positive, score)
    corner = np.ones(len(hits), dtype=bool)
    corner[1:-1] = (np.diff(hits, 2) != 0) | (np.diff(alarms, 2) != 0)
    return RocCurve(
        fpr=np.concatenate([[0.0], alarms[corner] / alarms[-1]]), tpr=np.concatenate([[0.0], hits[corner] / hits[-1]])
    )


def pr_curve(positive: Flags, score: Floats) -> PrCurve:
    """Return the precision-recall curve.

    Args:
        positive: bool [N].
        score: float [N], higher means more likely positive.

    Raises:
        DataError: positives or negatives are absent.
    """
    hits, alarms = _cumulated(positive, score)
    precision = hits / (hits + alarms)
    return PrCurve(
        recall=np.concatenate([hits[::-1] / hits[-1], [0.0]]), precision=np.concatenate([precision[::-1], [1.0]])
    )


def thin(n_points: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` indices spread evenly over 0..n_points-1, both ends included."""
    return np.unique(np.linspace(0, n_points - 1, min(n_points, most)).round().astype(np.int64))


def _cumulated(positive: Flags, score: Floats) -> tuple[Doubles, Doubles]:
    if positive.all() or not positive.any():
        raise DataError(f"a curve needs positives and negatives; {int(positive.sum())} of {len(positive)} are positive")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    return hits, last + 1 - hits
