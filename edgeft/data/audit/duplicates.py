"""Copies of one picture: in two splits they let the model be tested on what it was trained on.

Exact copies are equal as the model sees them (equal files are among them); near copies are found by
`edgeft.data.hashing`. Of a pair in two splits, the copy in the split that matters less yields: train to val, both to
test. Test is never changed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from edgeft.core.errors import DataError
from edgeft.data.audit.finding import MAX_ITEMS, Finding
from edgeft.data.config import NearDuplicatesConfig
from edgeft.data.decode import ImageFacts
from edgeft.data.hashing import near_pairs

_YIELDS_TO = (("train", "test"), ("val", "test"), ("train", "val"))
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Copies:
    """One pair in two splits: `copy` yields to `kept` (positions); exact or with what the search measured."""

    copy: int
    kept: int
    exact: bool
    hamming: int
    correlation: float


def copies_across_splits(
    facts: ImageFacts, splits: Sequence[str], near: NearDuplicatesConfig
) -> tuple[tuple[Copies, ...], tuple[Copies, ...]]:
    """Find the exact and the near copies that stand in two splits.

    Args:
        facts: of the N images.
        splits: train, val or test, length N.
        near: when two pictures are near copies.

    Returns:
        exact pairs, near pairs that are not exact.
    """
    exact = tuple(_exact(facts, splits))
    known = {(pair.copy, pair.kept) for pair in exact}
    return exact, tuple(pair for pair in _near(facts, splits, near) if (pair.copy, pair.kept) not in known)


def yielding(pairs: Sequence[Copies], splits: Sequence[str]) -> set[int]:
    """Return the positions to take out so that no pair stands in two splits; none of them is in test."""
    out = {pair.copy for pair in pairs if splits[pair.kept] == "test"}
    return out | {pair.copy for pair in pairs if splits[pair.kept] == "val" and pair.kept not in out}


def duplicate_findings(
    exact: Sequence[Copies],
    near: Sequence[Copies],
    paths: Sequence[str],
    splits: Sequence[str],
    policy: Literal["drop", "refuse", "report"],
) -> tuple[Finding, ...]:
    """Name the pairs and say what was done about them.

    Raises:
        DataError: there are pairs and `policy` is "refuse".
    """
    found = [*exact, *near]
    if policy == "refuse" and found:
        named = "".join(
            f"\n  {paths[pair.copy]} ({splits[pair.copy]}) and {paths[pair.kept]} ({splits[pair.kept]})"
            for pair in found[:_NAMED]
        )
        raise DataError(
            f"{len(found)} pairs of copies stand in two splits:{named}",
            hint="remove the copies, group them (data.columns.group), or set data.duplicates: drop",
        )
    dropped = yielding(found, splits) if policy == "drop" else set()
    return tuple(
        _finding(check, pairs, paths, splits, dropped)
        for check, pairs in (("exact copies across splits", exact), ("near copies across splits", near))
    )


def copies_within(facts: ImageFacts, splits: Sequence[str], paths: Sequence[str]) -> tuple[Finding, ...]:
    """Name pictures that stand more than once in one split: they weigh more, in test they count twice."""
    items: list[dict[str, str | list[str]]] = []
    extra: dict[str, int] = {}
    for split in dict.fromkeys(splits):
        members = [[i for i in same if splits[i] == split] for same in _equal_pictures(facts)]
        repeated = [same for same in members if len(same) > 1]
        items += [{"split": split, "paths": [paths[i] for i in same]} for same in repeated[:MAX_ITEMS]]
        extra[split] = sum(len(same) - 1 for same in repeated)
    if not items:
        return ()
    counts = ", ".join(f"{split} {n}" for split, n in extra.items() if n)
    severity: Literal["info", "warning"] = "warning" if extra.get("test") else "info"
    message = f"pictures that stand more than once in one split, surplus copies: {counts}"
    return (Finding("copies within a split", severity, message, items, extra),)


def contradictory_labels(facts: ImageFacts, labels: Sequence[str], paths: Sequence[str]) -> tuple[Finding, ...]:
    """Name identical pictures with different labels: at least one label of each is wrong."""
    items = [
        [{"path": paths[i], "class": labels[i]} for i in same]
        for same in _equal_pictures(facts)
        if len({labels[i] for i in same}) > 1
    ]
    if not items:
        return ()
    message = f"{len(items)} pictures carry two labels: at least one of them is wrong, and no model can learn both"
    return (Finding("contradictory labels", "warning", message, items, {"pictures": len(items)}),)


def _equal_pictures(facts: ImageFacts) -> list[list[int]]:
    by_digest: dict[str, list[int]] = defaultdict(list)
    for position, digest in enumerate(facts.pixel_sha256):
        by_digest[digest].append(position)
    return [same for same in by_digest.values() if len(same) > 1]


def _exact(facts: ImageFacts, splits: Sequence[str]) -> Iterator[Copies]:
    for same in _equal_pictures(facts):
        for first, second in combinations(same, 2):
            for copy, kept in ((first, second), (second, first)):
                if (splits[copy], splits[kept]) in _YIELDS_TO:
                    yield Copies(copy, kept, exact=True, hamming=0, correlation=1.0)


def _near(facts: ImageFacts, splits: Sequence[str], near: NearDuplicatesConfig) -> Iterator[Copies]:
    names = np.asarray(splits)
    for yielding_split, kept_split in _YIELDS_TO:
        copies, kept = np.flatnonzero(names == yielding_split), np.flatnonzero(names == kept_split)
        left, right = ((facts.phash[at], facts.thumbnail[at]) for at in (copies, kept))
        for pair in near_pairs(left, right, hamming=near.hamming, correlation=near.correlation):
            yield Copies(
                int(copies[pair.left]),
                int(kept[pair.right]),
                exact=False,
                hamming=pair.hamming,
                correlation=pair.correlation,
            )


def _finding(
    check: str, pairs: Sequence[Copies], paths: Sequence[str], splits: Sequence[str], dropped: set[int]
) -> Finding:
    if not pairs:
        return Finding(check, "info", "none", numbers={"pairs": 0, "dropped": 0})
    gone = sorted({pair.copy for pair in pairs} & dropped)
    done = (
        f"{len(gone)} copies were taken out of train and val, test is unchanged"
        if gone
        else "they were left in place: the test split flatters the model"
    )
    items = [_named(pair, paths, splits) for pair in pairs[:MAX_ITEMS]]
    message = f"{len(pairs)} pairs stand in two splits; {done}"
    return Finding(check, "warning", message, items, {"pairs": len(pairs), "dropped": len(gone)})


def _named(pair: Copies, paths: Sequence[str], splits: Sequence[str]) -> dict[str, str | float]:
    return {
        "copy": paths[pair.copy],
        "copy_split": splits[pair.copy],
        "kept": paths[pair.kept],
        "kept_split": splits[pair.kept],
        "hamming": pair.hamming,
        "correlation": round(pair.correlation, 5),
    }
