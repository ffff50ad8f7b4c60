"""The images or texts that what ships decides otherwise than the float graph, images with pictures of the input."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeft.core.atomic import write_atomic
from edgeft.pipeline.outcomes import Outcomes

FOLDER = "flips"


def flips(outcomes: Outcomes, pictures: int) -> list[dict[str, Any]]:
    """Return the changed decisions: harmful ones first, then by how sure the shipped model is.

    Args:
        outcomes: of the test split.
        pictures: how many get a `thumbnail`; the others have null.
    """
    classes, labels = outcomes.split.data.classes, outcomes.split.labels
    before = outcomes.fp32_rule.decided(outcomes.fp32_scores)
    after = outcomes.rule.decided(outcomes.raw_scores)
    found = []
    for place in np.flatnonzero(before != after):
        row = outcomes.split.data.rows[outcomes.split.rows[place]]
        old, new = int(before[place]), int(after[place])
        found.append(
            {
                "index": int(row.index),
                "path": row.path,
                "label": classes[labels[place]],
                "fp32": classes[old],
                "chosen": classes[new],
                "fp32_score": float(outcomes.fp32_scores[place, old]),
                "chosen_score": float(outcomes.raw_scores[place, new]),
                "harmful": bool(old == labels[place]),
                "text": row.text if row.pair is None else f"{row.text} | {row.pair}",
            }
        )
    found.sort(key=lambda flip: (not flip["harmful"], -flip["chosen_score"], flip["index"]))
    pictures = 0 if outcomes.split.data.is_text else pictures
    return [
        {**flip, "thumbnail": f"{FOLDER}/{flip['index']}.png" if order < pictures else None}
        for order, flip in enumerate(found)
    ]


def write_thumbnails(folder: Path, outcomes: Outcomes, changed: Sequence[dict[str, Any]]) -> None:
    """Write the pictures that `changed` names below `folder`."""
    for flip in changed:
        if flip["thumbnail"] is not None:
            buffer = io.BytesIO()
            Image.fromarray(np.asarray(outcomes.split.data.pixels[flip["index"]])).save(buffer, "PNG")
            write_atomic(folder / flip["thumbnail"], buffer.getvalue())
