"""Rows without a label, for a student to learn from its teacher's answers: they stand behind the labelled ones.

Whatever equals a labelled row, or is a near copy of one of val or test, is left out, so that nothing of these two is
seen in training.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgeft.core.errors import DataError
from edgeft.core.events import EventSink
from edgeft.data.audit.finding import MAX_ITEMS, Finding
from edgeft.data.config import NearDuplicatesConfig
from edgeft.data.dataset import Row
from edgeft.data.decode import ImageFacts, create_array, read_images
from edgeft.data.hashing import near_pairs
from edgeft.data.sources.rows import TEXT_COLUMNS, named_column, plain_text, read_table
from edgeft.data.text.audit import normal
from edgeft.data.text.config import TextColumns
from edgeft.runtime.preprocess import IMAGE_SUFFIXES, InputContract

T = TypeVar("T")
UNLABELLED = "unlabelled"
"""Their split, and the role of the folder or table that they come from."""


def unlabelled_row(index: int, path: str, sha256: str, text: str | None = None, pair: str | None = None) -> Row:
    """Return a row that has no class: label -1."""
    return Row(index, path, "", -1, path, "unlabelled", sha256, {}, text, pair)


@dataclass(frozen=True, slots=True)
class Known:
    """What unlabelled images must not be.

    Args:
        pixel_sha256: hex digests of the labelled images as the model sees them.
        held_out: facts of val and test.
        near: when two pictures are near copies.
    """

    pixel_sha256: frozenset[str]
    held_out: ImageFacts
    near: NearDuplicatesConfig

    def copies(self, facts: ImageFacts) -> set[int]:
        """Return the positions in `facts` of near copies of what is held out."""
        left, right = ((each.phash, each.thumbnail) for each in (facts, self.held_out))
        pairs = near_pairs(left, right, hamming=self.near.hamming, correlation=self.near.correlation)
        return {int(pair.left) for pair in pairs}


def append_images_(
    target: Path,
    folder: Path,
    limit: int | None,
    contract: InputContract,
    known: Known,
    threads: int,
    emit: EventSink,
) -> tuple[list[Row], list[Finding]]:
    """Decode the images below `folder` and put them behind those of the .npy file `target`.

    Args:
        target: pixels of the labelled images.
        folder: images, at any depth.
        limit: how many of them at most.
        contract: the model's input.
        known: what is left out.
        threads: how many images are read at a time.
        emit: where progress goes.

    Raises:
        DataError: the folder holds no image that can be used.
        DeviceError: the disk is full.
    """
    if not folder.is_dir():
        raise DataError(f"data.unlabelled: {folder} is no folder", hint="name a folder of images")
    paths = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not paths:
        raise DataError(f"data.unlabelled: {folder} holds no image", hint=f"edgeft reads {' '.join(IMAGE_SUFFIXES)}")
    count, paths = len(paths), _spread(paths, limit)
    beside = target.with_name(f"{UNLABELLED}.npy")
    facts = read_images(folder, paths, contract, beside, threads=threads, emit=emit)
    seen = set(known.pixel_sha256)
    keep: list[int] = []
    out = facts.failures.keys() | known.copies(facts)
    for position, digest in enumerate(facts.pixel_sha256):
        if position not in out and digest not in seen:
            keep.append(position)
            seen.add(digest)
    first = _join_(target, beside, keep)
    rows = [
        unlabelled_row(first + number, f"{UNLABELLED}/{paths[position]}", facts.sha256[position])
        for number, position in enumerate(keep)
    ]
    failures = [facts.failures[at] for at in sorted(facts.failures)]
    return rows, [
        _finding(len(keep), count, "unreadable, equal to others, or near copies of val or test", limit, failures)
    ]


def read_unlabelled_texts(
    source: Path,
    limit: int | None,
    delimiter: str | None,
    columns: TextColumns,
    labelled: Sequence[tuple[str, str | None]],
) -> tuple[list[tuple[str, str, str | None]], Finding]:
    """Read texts without a label: what each is called, the text and the second one.

    Args:
        source: a table with the text's column.
        limit: how many of them at most.
        delimiter: of the table.
        columns: which columns mean what; labels are not read.
        labelled: texts of the labelled rows.

    Raises:
        DataError: the table cannot be read, lacks the column, or holds nothing new.
    """
    table = read_table(source, delimiter=delimiter, names=columns.names, single=columns.pair is None)
    column = named_column(columns.text, TEXT_COLUMNS, table, "text")
    pair = None if columns.pair is None else named_column(columns.pair, (), table, "pair")
    seen = {(normal(text), normal(other or "")) for text, other in labelled}
    found, count = [], 0
    for index, row in enumerate(table.rows()):
        count += 1
        text, other = plain_text(row[column]), None if pair is None else plain_text(row[pair])
        key = normal(text), normal(other or "")
        if text.strip() and key not in seen:
            seen.add(key)
            found.append((f"{UNLABELLED}: {table.where(index)}", text, other))
    found = _spread(found, limit)
    return found, _finding(len(found), count, "empty, or equal to others", limit, [])


def _join_(target: Path, beside: Path, keep: Sequence[int]) -> int:
    """Put the rows `keep` of `beside` behind those of `target`, delete `beside`, return where the first stands."""
    own, more = np.load(target, mmap_mode="r"), np.load(beside, mmap_mode="r")
    whole = target.with_name("joined.npy")
    array = create_array(whole, (len(own) + len(keep), *own.shape[1:]))
    array[: len(own)] = own
    for number, position in enumerate(keep):
        array[len(own) + number] = more[position]
    array.flush()
    first = len(own)
    del own, more, array
    os.replace(whole, target)  # noqa: PTH105 - the design's own word for the atomic step
    beside.unlink()
    return first


def _spread(items: list[T], limit: int | None) -> list[T]:
    """Return at most `limit` of `items`, evenly spread, in their order."""
    if limit is None or len(items) <= limit:
        return items
    return [items[number * len(items) // limit] for number in range(limit)]


def _finding(kept: int, of: int, why: str, limit: int | None, failures: Sequence[str]) -> Finding:
    if limit is not None:
        why = f"{why}, or beyond data.unlabelled_limit ({limit})"
    if not kept:
        raise DataError(
            f"data.unlabelled: none of {of} rows is left: all are {why}",
            hint="give rows that are not labelled yet, or take more of them",
        )
    message = f"{kept} of {of} rows without a label are taken; the others are {why}"
    return Finding(
        "unlabelled",
        "info" if kept == of else "warning",
        message,
        list(failures[:MAX_ITEMS]),
        {"taken": kept, "of": of},
    )
