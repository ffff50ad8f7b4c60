"""Writing the data stage's folder: rows, header, and pixels of the images that stay."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeft.core.atomic import write_atomic
from edgeft.core.stage import Json
from edgeft.data.dataset import Row


def keep_rows_(path: Path, keep: Sequence[int]) -> None:
    """Shrink the .npy array at `path` to the rows `keep` (ascending), in place.

    Rows move up inside the file, then the header is rewritten; NumPy pads headers so that the first dimension may
    change without moving the data.
    """
    array = np.lib.format.open_memmap(path, mode="r+")
    if len(keep) == len(array):
        return
    for new, old in enumerate(keep):
        if new != old:
            array[new] = array[old]
    array.flush()
    shape, row_bytes, offset = (len(keep), *array.shape[1:]), array[:1].nbytes, array.offset
    del array
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    with path.open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        if file.tell() != offset:
            msg = f"the header of {path} grew from {offset} to {file.tell()} bytes"
            raise AssertionError(msg)
        file.truncate(offset + row_bytes * len(keep))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows.jsonl."""
    lines = (
        json.dumps(
            {
                "index": row.index,
                "path": row.path,
                "class": row.class_name,
                "label": row.label,
                "group": row.group,
                "split": row.split,
                "sha256": row.sha256,
                "slices": dict(row.slices),
                **({} if row.text is None else {"text": row.text, "pair": row.pair}),
            },
            ensure_ascii=False,
        )
        for row in rows
    )
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def write_header(path: Path, header: dict[str, Json]) -> None:
    """Write dataset.json."""
    write_atomic(path, json.dumps(header, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
