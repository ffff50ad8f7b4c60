"""Writing the data stage's folder: rows, header, and pixels of the images that stay."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError
from edgeft.core.stage import Json
from edgeft.data.audit.counts import Counts
from edgeft.data.audit.finding import Finding
from edgeft.data.audit.quarantine import Quarantined
from edgeft.data.config import DOMAIN, LabelledConfig
from edgeft.data.dataset import SCHEMA, Row, Split
from edgeft.data.sources.rows import SourceRow
from edgeft.runtime.encode import Contract


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


def numbered(
    rows: Sequence[SourceRow], splits: Sequence[str], digests: Sequence[str], classes: Sequence[str]
) -> list[Row]:
    """Return the rows of a dataset, numbered in their order.

    Args:
        rows: labelled, length N.
        splits: the split of each.
        digests: sha256 of each one's file or text.
        classes: in frozen order.
    """
    number = {name: label for label, name in enumerate(classes)}
    return [
        Row(
            index=index,
            path=row.path,
            class_name=row.label,
            label=number[row.label],
            group=row.group,
            split=cast("Split", split),
            sha256=digest,
            slices=row.slices,
            text=row.text,
            pair=row.pair,
        )
        for index, (row, split, digest) in enumerate(zip(rows, splits, digests, strict=True))
    ]


def header(
    task: str,
    classes: Sequence[str],
    config: LabelledConfig,
    contract: Contract,
    counts: Counts,
    findings: Sequence[Finding],
    quarantined: Sequence[Quarantined] = (),
) -> dict[str, Json]:
    """Return what dataset.json holds.

    Args:
        task: "image_classification" or "text_classification".
        classes: in frozen order.
        config: names the class of good parts, and the mix of domains.
        contract: how inputs were made.
        counts: rows by split and class.
        findings: of the audit.
        quarantined: what was left out.
    """
    return {
        "schema": SCHEMA,
        "task": task,
        "classes": list(classes),
        "ok_class": config.ok_class,
        "input": contract.to_json(),
        "counts": plain(counts),
        "n": sum(sum(row.values()) for row in counts.values()),
        "audit": [finding.to_json() for finding in findings],
        "quarantined": [item.to_json() for item in quarantined],
        "mix": None if config.mix is None else dict(config.mix),
    }


def require_domains(mix: Mapping[str, float] | None, rows: Sequence[Row]) -> None:
    """Refuse a mix that names other domains than the training rows have.

    Raises:
        DataError: names the domain, and a row of it.
    """
    if mix is None:
        return
    train = [row for row in rows if row.split == "train"]
    strange = next((row for row in train if row.slices.get(DOMAIN) not in mix), None)
    if strange is not None:
        raise DataError(
            f"{strange.path}: domain {strange.slices.get(DOMAIN)!r} has no share in data.mix",
            hint=f"data.mix names {', '.join(mix)}",
        )
    absent = sorted(set(mix) - {row.slices[DOMAIN] for row in train})
    if absent:
        raise DataError(f"data.mix: no training row is of domain {absent[0]!r}", hint="correct data.mix, or the split")


def plain(counts: Counts) -> dict[str, Json]:
    """Return counts as JSON values."""
    return {split: dict(row) for split, row in counts.items()}


def write_header(path: Path, header: dict[str, Json]) -> None:
    """Write dataset.json."""
    write_atomic(path, json.dumps(header, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
