"""From a table or folder to rows with classes and splits, before any image is opened: what `plan` can already tell."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeft.core.seeds import derive_seed
from edgeft.data.audit.finding import Finding
from edgeft.data.classes import check_ok_class, freeze_classes
from edgeft.data.config import DataConfig, LabelledConfig
from edgeft.data.partition import partition
from edgeft.data.sources.rows import SourceRow, read_rows, read_table


@dataclass(frozen=True, slots=True)
class Divided:
    """The rows that a recipe takes, in the source's order.

    Args:
        rows: the rows.
        splits: the split of each.
        classes: in frozen order.
        findings: what the division has to say.
        ignored: files that are no images.
    """

    rows: tuple[SourceRow, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    ignored: tuple[str, ...]


def divide(inputs: Mapping[str, Path], config: DataConfig) -> Divided:
    """Read, name and divide the rows of `inputs["source"]`, whose images lie below `inputs["images"]`.

    Raises:
        DataError: the source cannot be used; the message names the file, row, class or split.
        UsageError: an expression's syntax is wrong.
        DeviceError: a library for the table's format is missing.
    """
    table = read_table(inputs["source"], delimiter=config.delimiter, names=config.columns.names)
    return divided(read_rows(table, inputs["images"], config.columns), config, table.ignored)


def divided(rows: Sequence[SourceRow], config: LabelledConfig, ignored: Sequence[str] = ()) -> Divided:
    """Name and divide `rows`; for the rest see `divide`."""
    classes = freeze_classes(rows, config.classes)
    check_ok_class(config.ok_class, classes)
    division = partition(rows, classes, config.split)
    chosen = limited(rows, division.splits, config)
    return Divided(
        tuple(rows[i] for i in chosen),
        tuple(division.splits[i] for i in chosen),
        tuple(classes),
        (*division.findings, *_left_out(config)),
        tuple(ignored),
    )


def count_test_images(inputs: Mapping[str, Path], config: DataConfig) -> int:
    """Return how many images the test split will have, unless the audit drops some.

    Raises:
        DataError: as `divide`.
        UsageError: as `divide`.
        DeviceError: as `divide`.
    """
    return divide(inputs, config).splits.count("test")


def limited(rows: Sequence[SourceRow], splits: Sequence[str], config: LabelledConfig) -> list[int]:
    """Return the positions that `config.limit` leaves, ascending: the same ones for the same seed."""
    limit = config.limit
    if limit is None:
        return list(range(len(rows)))
    keys = [(split, row.label) for split, row in zip(splits, rows, strict=True)]
    shares = {} if isinstance(limit, int) else {str(split): share for split, share in limit.items()}
    most = {
        key: limit if isinstance(limit, int) else math.ceil(shares.get(key[0], 1) * count)
        for key, count in Counter(keys).items()
    }
    rng = np.random.default_rng(derive_seed(config.split.seed, "limit"))
    chosen = []
    for i in rng.permutation(len(rows)).tolist():
        most[keys[i]] -= 1
        if most[keys[i]] >= 0:
            chosen.append(i)
    return sorted(chosen)


def _left_out(config: LabelledConfig) -> list[Finding]:
    limit = config.limit
    if limit is None:
        return []
    if isinstance(limit, int):
        message = f"a trial: at most {limit} rows of each class in each split were used; no result is meaningful"
        return [Finding("limit", "warning", message, numbers={"limit": limit})]
    shares = " and ".join(f"{share:.0%} of each class in {split}" for split, share in limit.items())
    numbers = {str(split): share for split, share in limit.items()}
    return [Finding("limit", "warning", f"limited to {shares}", numbers=numbers)]
