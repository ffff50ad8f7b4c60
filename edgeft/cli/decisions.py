"""What `edgeft predict` and `edgeft verify` print."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeft.runtime.predictor import Prediction


def decision_line(found: "Prediction") -> str:
    """Return path, label and score of the decided class, separated by tabs, and REVIEW where a person should look."""
    return f"{found.path}\t{found.label}\t{found.scores[found.index]:.4f}" + ("\tREVIEW" if found.review else "")


def decision_object(found: "Prediction", classes: Sequence[str]) -> dict[str, object]:
    """Return one entry of `predict --json`; scores by class name, in class order."""
    return {
        "path": str(found.path),
        "label": found.label,
        "index": found.index,
        "score": found.scores[found.index],
        "review": found.review,
        "scores": dict(zip(classes, found.scores, strict=True)),
    }


def check_text(found: Mapping[str, Any]) -> str:
    """Return what a passed check proved."""
    pixels = "to the same pixels" if found["raw_pixels_equal"] else "to nearly the same pixels"
    golden = (
        f"{found['golden_images']} images replayed, {found['raw_images']} of them from raw files {pixels}; "
        f"scores differ by at most {found['max_abs_score_error']:.2g} (allowed {found['atol']:.2g})"
    )
    lines = [
        f"{found['bundle']}: ok",
        f"bundle  {found['name']}, {found['precision']} for {found['target']}, content {found['content_digest']}",
        f"files   {found['files']} with the digests that the manifest names",
        f"golden  {golden}",
    ]
    return "\n".join([*lines, *(f"note    {text}" for text in found["notes"])])
