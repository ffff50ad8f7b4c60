"""Stored activations of frozen layers: computed once per view of an image, resumable, read by row.

One float32 file per split and view. 4-D activations are stored [n, H, W, C], so that a gathered batch is channels_last.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeft.core.atomic import write_atomic
from edgeft.core.disk import take_space
from edgeft.core.errors import IntegrityError
from edgeft.core.events import EventSink, Progress
from edgeft.finetune.sampling import Rows

Compute: TypeAlias = Callable[[str, int, Rows], Tensor]
"""(split, view, rows [n]) -> activations float32 [n, ...]; the same arguments give the same bits."""

CHUNK = 32
"""Rows per call of `Compute`, unless told otherwise: fixed, so that a resumed run cuts at the same places."""
_FLUSH_SECONDS = 5.0
MAPS = 4
"""Dimensions of a batch of feature maps."""


class ActivationCache:
    """The output of frozen layers for every row of a few splits.

    Args:
        folder: where the files are kept; below the stage's workspace.
        splits: ascending dataset rows of each split.
        compute: produces the activations of one chunk.
        emit: where progress goes.
        chunk: rows per call of `compute`.
        store: beginning of the finished files' path, where other runs find them, too; None keeps them in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        splits: Mapping[str, Rows],
        compute: Compute,
        emit: EventSink,
        chunk: int = CHUNK,
        *,
        store: Path | None = None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._splits = splits
        self._compute = compute
        self._emit = emit
        self._chunk = chunk
        self._open: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
        self.computed = 0
        """Rows that this object computed; the others were found on disk."""

    def prepare(self, split: str, view: int) -> npt.NDArray[np.float32]:
        """Return the whole array of a split's view, [n, ...] as stored; computed where it is not on disk yet."""
        if (split, view) not in self._open:
            self._open[split, view] = self._array(split, view)
        return self._open[split, view]

    def rows(self, split: str, view: int, rows: Rows) -> Tensor:
        """Return float32 [n, ...] for dataset rows `rows` [n], all of `split`, in any order."""
        array = self.prepare(split, view)
        gathered = torch.from_numpy(array[np.searchsorted(self._splits[split], rows)])
        return gathered.permute(0, 3, 1, 2) if gathered.ndim == MAPS else gathered

    def size_bytes(self) -> int:
        """Return the size of the finished files."""
        return sum(path.stat().st_size for path in self._folder.glob("*.npy"))

    def drop(self) -> None:
        """Delete the files."""
        self._open.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _array(self, split: str, view: int) -> npt.NDArray[np.float32]:
        name = f"{split}_{view}.npy"
        whole = self._folder / name if self._store is None else self._store.with_name(f"{self._store.name}-{name}")
        found = _whole(whole, len(self._splits[split]))
        if found is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._fill(split, view, self._folder / name)
            if whole.parent != self._folder:
                os.replace(self._folder / name, whole)  # noqa: PTH105 - the design's own word for the atomic step
            found = _whole(whole, len(self._splits[split]))
        if found is None:
            raise IntegrityError(f"{whole}: cannot be read back", hint="run the build again")
        return found

    def _fill(self, split: str, view: int, whole: Path) -> None:
        rows = self._splits[split]
        partial, cursor = whole.with_suffix(".partial"), whole.with_suffix(".json")
        done = json.loads(cursor.read_text())["done"] if cursor.is_file() and partial.is_file() else 0
        array = np.load(partial, mmap_mode="r+") if done else None
        task, saved = f"features {split}" + (f", view {view + 1}" if view else ""), time.monotonic()
        for start in range(done, len(rows), self._chunk):
            part = _stored(self._compute(split, view, rows[start : start + self._chunk]))
            if array is None:
                array = np.lib.format.open_memmap(partial, "w+", np.float32, (len(rows), *part.shape[1:]))
                take_space(partial, purpose=task)
            array[start : start + self._chunk] = part
            self.computed += len(part)
            self._emit(Progress(task, min(start + self._chunk, len(rows)), len(rows)))
            if time.monotonic() - saved > _FLUSH_SECONDS:
                array.flush()
                write_atomic(cursor, json.dumps({"done": start + len(part)}))
                saved = time.monotonic()
        if array is not None:
            array.flush()
            del array
        os.replace(partial, whole)  # noqa: PTH105 - the design's own word for the atomic step
        cursor.unlink(missing_ok=True)


def _whole(path: Path, count: int) -> npt.NDArray[np.float32] | None:
    """Return the finished file at `path`, or None where there is none, or a damaged one."""
    try:
        found: npt.NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError):  # missing, cut short, or no array
        return None
    return found if found.dtype == np.float32 and len(found) == count else None


def _stored(activations: Tensor) -> npt.NDArray[np.float32]:
    laid_out = activations.permute(0, 2, 3, 1) if activations.ndim == MAPS else activations
    return laid_out.detach().cpu().float().numpy()
