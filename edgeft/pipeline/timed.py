"""What models are timed on: a few real validation images or texts, written for the processes that time them."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError
from edgeft.recipe.target_stages import BUNDLE_RUNTIME
from edgeft.runtime.worker import Request

_ROWS = 16


def own_runtime(target: str) -> str | None:
    """Return the "module:Class" whose runtime times files of `target`; None where onnxruntime runs them as they are."""
    exporter = catalog.exporter(target)
    plain = exporter.cross or exporter.fingerprint().get("runtime") == BUNDLE_RUNTIME
    return None if plain else catalog.exporters()[target]


@dataclass(frozen=True, slots=True)
class Timed:
    """A few rows of the validation split.

    Args:
        data: an `edgeft.data.dataset:Dataset`.
        rows: which.
        images: root of the raw images; None of texts.
        inputs: the file that holds the rows as the graph takes them.
    """

    data: Any
    rows: np.ndarray
    images: Path | None
    inputs: Path

    def model_alone(self, request: Request) -> Request:
        """Return `request` on these rows."""
        return replace(request, inputs=str(self.inputs), ragged=bool(self.data.is_text))

    def end_to_end(self, request: Request) -> Request | None:
        """Return `request` from raw files or texts; None where there are none."""
        listed = [self.data.rows[row] for row in self.rows]
        plain = replace(request, inputs=None, ragged=False, contract=self.data.contract.to_json())
        if self.data.is_text:
            texts = tuple(row.source for row in listed)
            return replace(plain, texts=texts, tokenizer=str(self.data.folder / "tokenizer.json"))
        if self.images is None:
            return None
        return replace(plain, images=tuple(str(self.images / row.path) for row in listed))


def timed(folder: Path, images: Path | None, path: Path) -> Timed:
    """Write a few validation rows of the data stage's `folder` to `path` (.npz), evenly spread over the split.

    Raises:
        DataError: there are no validation rows.
    """
    data = catalog.resolve("edgeft.data.dataset:Dataset").open(folder)
    val = data.indices("val")
    if not len(val):
        raise DataError(f"{folder}: no validation rows to time on", hint="give data.split a val share")
    rows = val[:: max(1, len(val) // _ROWS)][:_ROWS]
    buffer = io.BytesIO()
    np.savez(buffer, **data.feeds(rows))
    write_atomic(path, buffer.getvalue())
    return Timed(data, rows, images, path)
