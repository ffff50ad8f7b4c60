"""Predictions as `edgeft predict` prints them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeft.runtime.predictor import Prediction


def decision_line(found: "Prediction") -> str:
    """Return path, label and score of the decided class, separated by tabs."""
    return f"{found.path}\t{found.label}\t{found.scores[found.index]:.4f}"


def decision_object(found: "Prediction", classes: Sequence[str]) -> dict[str, object]:
    """Return one entry of `predict --json`; scores by class name, in class order."""
    return {
        "path": str(found.path),
        "label": found.label,
        "index": found.index,
        "score": found.scores[found.index],
        "scores": dict(zip(classes, found.scores, strict=True)),
    }
