"""Which split each row belongs to: the source's own, or a division by the recipe's shares; and what to say about it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError
from edgeft.core.seeds import derive_seed
from edgeft.data.audit.finding import MAX_ITEMS, Finding
from edgeft.data.config import SplitConfig
from edgeft.data.sources.rows import SourceRow
from edgeft.data.split import divide

SPLITS = ("train", "val", "test")
"""The splits, in order."""
_DEVIATION_PP = 2.0


@dataclass(frozen=True, slots=True)
class Partition:
    """The split of each row, in row order, and what the audit says about how it came about."""

    splits: tuple[str, ...]
    findings: tuple[Finding, ...]


def partition(rows: Sequence[SourceRow], classes: Sequence[str], config: SplitConfig) -> Partition:
    """Put every row into train, val or test.

    Args:
        rows: labelled rows; either all or none name their split.
        classes: the frozen class order.
        config: shares, unit and seed.

    Raises:
        DataError: an explicit split lacks train or test, or a class is missing from a split.
    """
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[row.label] for row in rows], dtype=np.int64)
    groups = [row.group if config.by == "group" else row.where for row in rows]
    if any(row.split for row in rows):
        splits, findings = _explicit(rows, labels, groups, config)
    else:
        splits, findings = _divided(labels, groups, config)
    check_every_class(splits, [row.label for row in rows], groups, classes)
    findings = [*findings, *_shared_groups(splits, [row.group for row in rows], grouped=_grouped(rows))]
    return Partition(tuple(splits), tuple(findings))


def check_every_class(
    splits: Sequence[str], labels: Sequence[str], groups: Sequence[str], classes: Sequence[str]
) -> None:
    """Raise DataError naming the class and the split where a split lacks a class."""
    present = set(zip(splits, labels, strict=True))
    for split in SPLITS:
        for name in classes:
            if (split, name) in present:
                continue
            images = sum(label == name for label in labels)
            units = len({group for group, label in zip(groups, labels, strict=True) if label == name})
            raise DataError(
                f"the split {split} has no row of the class {name!r} ({images} in {units} groups in all)",
                hint="each class needs rows in at least three groups: add some, use smaller groups, "
                "or leave the class out",
            )


def _grouped(rows: Sequence[SourceRow]) -> bool:
    return any(row.group != row.path for row in rows)


def _divided(
    labels: npt.NDArray[np.int64], groups: Sequence[str], config: SplitConfig
) -> tuple[list[str], list[Finding]]:
    seed = derive_seed(config.seed, "split")
    if config.folds is None:
        parts = divide(labels, groups, (config.train, config.val, config.test), seed)
        splits = [SPLITS[part] for part in parts]
    else:
        folds = divide(labels, groups, (1 / config.folds,) * config.folds, seed)
        splits = ["test" if fold == config.fold else "" for fold in folds]
        splits = _carve_val(splits, labels, groups, config, take_from="")
    return splits, [_shares(splits, labels, groups, config)]


def _explicit(
    rows: Sequence[SourceRow], labels: npt.NDArray[np.int64], groups: Sequence[str], config: SplitConfig
) -> tuple[list[str], list[Finding]]:
    splits = [row.split or "" for row in rows]
    counts = Counter(splits)
    for split in ("train", "test"):
        if not counts[split]:
            hint = "rename val to test: val is then taken from train" if split == "test" and counts["val"] else None
            found = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
            raise DataError(f"the data's own splits have no {split} ({found})", hint=hint)
    if counts["val"]:
        message = "the data's own splits are used: " + ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        return splits, [Finding("split", "info", message, numbers=dict(counts))]
    carved = _carve_val(splits, labels, groups, config, take_from="train")
    taken = carved.count("val")
    unit = "by group" if config.by == "group" else "row by row"
    message = (
        f"the data has train and test of its own and no val: {taken} of the {counts['train']} train rows were "
        f"taken for val, {unit}; test is untouched"
    )
    return carved, [Finding("split", "info", message, numbers=dict(Counter(carved)))]


def _carve_val(
    splits: Sequence[str], labels: npt.NDArray[np.int64], groups: Sequence[str], config: SplitConfig, *, take_from: str
) -> list[str]:
    """Divide what is called `take_from` into train and val in the recipe's proportion."""
    rows = [index for index, split in enumerate(splits) if split == take_from]
    share = config.val / (config.train + config.val)
    seed = derive_seed(config.seed, "val")
    parts = divide(labels[rows], [groups[row] for row in rows], (1 - share, share), seed)
    result = list(splits)
    for row, part in zip(rows, parts, strict=True):
        result[row] = SPLITS[part]
    return result


def _shares(
    splits: Sequence[str], labels: npt.NDArray[np.int64], groups: Sequence[str], config: SplitConfig
) -> Finding:
    """Compare the shares that came out with those asked for, in all and per class."""
    test = config.test if config.folds is None else 1 / config.folds
    rest = (1 - test) / (config.train + config.val)
    wanted = {"train": config.train * rest, "val": config.val * rest, "test": test}
    names = np.array(splits)
    got = {split: float(np.mean(names == split)) for split in SPLITS}
    worst = max(
        abs(float(np.mean(names[labels == label] == split)) - wanted[split])
        for label in np.unique(labels)
        for split in SPLITS
    )
    units = {split: len({g for g, s in zip(groups, splits, strict=True) if s == split}) for split in SPLITS}
    parts = ", ".join(
        f"{split} {splits.count(split)} rows in {units[split]} groups ({100 * got[split]:.1f} %, asked "
        f"{100 * wanted[split]:.1f} %)"
        for split in SPLITS
    )
    return Finding(
        "split",
        "warning" if 100 * worst > _DEVIATION_PP else "info",
        f"divided by {config.by}, stratified, seed {config.seed}: {parts}; the largest deviation of a class's share is "
        f"{100 * worst:.1f} pp",
        numbers={"share": dict(got), "groups": dict(units), "largest_class_deviation_pp": round(100 * worst, 4)},
    )


def _shared_groups(splits: Sequence[str], groups: Sequence[str], *, grouped: bool) -> list[Finding]:
    where: Mapping[str, set[str]] = defaultdict(set)
    for split, group in zip(splits, groups, strict=True):
        where[group].add(split)
    shared = sorted(group for group, found in where.items() if len(found) > 1)
    if not grouped or not shared:
        return []
    message = (
        f"{len(shared)} of {len(where)} groups stand in more than one split (first: {shared[0]!r}): rows of one "
        "group are alike, so the test split flatters the model"
    )
    return [Finding("groups across splits", "warning", message, shared[:MAX_ITEMS], {"groups": len(shared)})]
