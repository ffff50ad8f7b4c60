"""The images or texts that what ships decides otherwise than the float graph, images with pictures of the input."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeft.core.atomic import write_atomic
from edgeft.pipeline.verification.held_out import Floats, HeldOut
from edgeft.pipeline.verification.outcomes import FP32, Outcomes

FOLDER = "flips"


@dataclass(frozen=True, slots=True)
class Decided:
    """What one of two models decides.

    Args:
        name: the key under which its decisions stand.
        classes: int64 [n].
        scores: float32 [n, K].
    """

    name: str
    classes: npt.NDArray[np.int64]
    scores: Floats


def flips(outcomes: Outcomes, pictures: int) -> list[dict[str, Any]]:
    """Return what ships decides otherwise than the float graph; see `changed`."""
    before = Decided(FP32, outcomes.fp32_rule.decided(outcomes.fp32_scores), outcomes.fp32_scores)
    after = Decided("chosen", outcomes.rule.decided(outcomes.raw_scores), outcomes.raw_scores)
    return changed(outcomes.split, before, after, pictures, FOLDER)


def changed(split: HeldOut, before: Decided, after: Decided, pictures: int, folder: str) -> list[dict[str, Any]]:
    """Return the rows that two models decide otherwise: harmful ones first, then by how sure the second one is.

    Args:
        split: the test rows.
        before: the first model.
        after: the second one.
        pictures: how many get a `thumbnail`; the others have null.
        folder: of the pictures.
    """
    classes, labels = split.data.classes, split.labels
    found = []
    for place in np.flatnonzero(before.classes != after.classes):
        row = split.data.rows[split.rows[place]]
        old, new = int(before.classes[place]), int(after.classes[place])
        found.append(
            {
                "index": int(row.index),
                "path": row.path,
                "label": classes[labels[place]],
                before.name: classes[old],
                after.name: classes[new],
                f"{before.name}_score": float(before.scores[place, old]),
                f"{after.name}_score": float(after.scores[place, new]),
                "harmful": bool(old == labels[place]),
                "text": row.text if row.pair is None else f"{row.text} | {row.pair}",
            }
        )
    found.sort(key=lambda flip: (not flip["harmful"], -flip[f"{after.name}_score"], flip["index"]))
    pictures = 0 if split.data.is_text else pictures
    return [
        {**flip, "thumbnail": f"{folder}/{flip['index']}.png" if order < pictures else None}
        for order, flip in enumerate(found)
    ]


def write_thumbnails(folder: Path, split: HeldOut, rows: Iterable[dict[str, Any]]) -> None:
    """Write the pictures that `rows` name below `folder`."""
    for flip in rows:
        if flip["thumbnail"] is not None:
            buffer = io.BytesIO()
            Image.fromarray(np.asarray(split.data.pixels[flip["index"]])).save(buffer, "PNG")
            write_atomic(folder / flip["thumbnail"], buffer.getvalue())
