"""Reading the data stage's folder: what every later stage sees of the images.

dataset.json   classes in their frozen order, the input contract, counts, audit, quarantine
rows.jsonl     one image a line: index, path, class, label, group, split, sha256, slices
pixels.npy     uint8 [N, H, W, 3], row i belongs to line i
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError, IntegrityError
from edgeft.runtime.preprocess import InputContract

SCHEMA = 2
"""Version of the folder's layout."""
Split: TypeAlias = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Row:
    """One image: its place, path below the images' root, class and number, group, split, digest, and slices by name."""

    index: int
    path: str
    class_name: str
    label: int
    group: str
    split: Split
    sha256: str
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on disk.

    Args:
        folder: the data stage's folder.
        classes: the frozen class order, length K.
        ok_class: the class that means "nothing found", where the recipe names one.
        input: how the pixels were made.
        rows: length N, in the order of `pixels`.
        pixels: uint8 [N, H, W, 3], mapped from disk.
        labels: int64 [N], 0..K-1.
    """

    folder: Path
    classes: tuple[str, ...]
    ok_class: str | None
    input: InputContract
    rows: tuple[Row, ...]
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open the data stage's `folder`; pixels stay on disk until they are read.

        Raises:
            DataError: the folder is none of the data stage's, or of another version.
            IntegrityError: its files do not fit together.
        """
        try:
            head = json.loads((folder / "dataset.json").read_bytes())
            lines = (folder / "rows.jsonl").read_text().splitlines()
            pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"{error.filename}: missing, expected a folder that the data stage wrote") from error
        if head.get("schema") != SCHEMA:
            raise DataError(f"{folder}/dataset.json: schema {head.get('schema')}, this version reads {SCHEMA}")
        rows = tuple(_row(json.loads(line)) for line in lines)
        contract = InputContract.from_json(head["input"])
        shape = (len(rows), contract.height, contract.width, 3)
        if pixels.shape != shape or pixels.dtype != np.uint8 or len(rows) != head["n"]:
            raise IntegrityError(
                f"{folder}: dataset.json says {head['n']} images, rows.jsonl has {len(rows)}, pixels.npy is "
                f"{pixels.dtype} {pixels.shape}, expected uint8 {shape}",
                hint="delete the folder and run the build again",
            )
        labels = np.array([row.label for row in rows], dtype=np.int64)
        return cls(folder, tuple(head["classes"]), head["ok_class"], contract, rows, pixels, labels)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each image, length N."""
        return tuple(row.group for row in self.rows)

    @property
    def positive_index(self) -> int | None:
        """The label of the class that is not `ok_class`; None unless there are two classes and one is named ok."""
        if self.ok_class is None or len(self.classes) != 2:  # noqa: PLR2004 - a positive class needs exactly two
            return None
        return 1 - self.classes.index(self.ok_class)

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the rows of `split` in ascending order, int64 [n]."""
        return np.array([row.index for row in self.rows if row.split == split], dtype=np.int64)


def _row(values: dict[str, object]) -> Row:
    match values:
        case {
            "index": int(index),
            "path": str(path),
            "class": str(class_name),
            "label": int(label),
            "group": str(group),
            "split": ("train" | "val" | "test") as split,
            "sha256": str(sha256),
            "slices": dict(slices),
        }:
            return Row(index, path, class_name, label, group, split, sha256, slices)
        case _:
            raise IntegrityError(f"rows.jsonl: cannot read the row {values}")
