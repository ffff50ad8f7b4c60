"""What texts have wrong with them: copies, contradictory labels, cuts, and scripts that differ between splits.

A copy is a text that is another one, case and blanks aside (NFKC, casefold). Copies are looked for before the division
into splits, so none of them can leak from one into another.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError
from edgeft.data.audit.finding import MAX_ITEMS, Evidence, Finding, Severity
from edgeft.data.sources.rows import SourceRow

_LONG = 0.1
"""Share of cut texts from which the audit warns."""
_SHIFT = 0.1
"""Difference in a script's share between two splits from which the audit warns."""
_SHOWN = 3
_SAMPLE = 2000
"""Texts whose scripts are counted."""


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """The rows that stay, and what the audit says about the others."""

    rows: tuple[SourceRow, ...]
    findings: tuple[Finding, ...]


def deduplicated(rows: Sequence[SourceRow], policy: str) -> Deduplicated:
    """Drop, refuse or only count texts that stand twice.

    Args:
        rows: labelled texts.
        policy: `data.duplicates`.

    Raises:
        DataError: there are copies, and the policy refuses them.
    """
    same: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        same[normal(row.text or ""), normal(row.pair or "")].append(index)
    copies = [indices for indices in same.values() if len(indices) > 1]
    contradictory = [indices for indices in copies if len({rows[i].label for i in indices}) > 1]
    extra = sum(len(indices) - 1 for indices in copies)
    if copies and policy == "refuse":
        first = ", ".join(rows[i].where for i in copies[0][:_SHOWN])
        raise DataError(
            f"{extra} of {len(rows)} texts stand twice (first: {first})",
            hint="data.duplicates: drop keeps the first of each, and none where labels contradict each other",
        )
    gone: set[int] = set()
    if policy == "drop":
        gone = {i for indices in copies for i in indices[1:]} | {i for indices in contradictory for i in indices}
    what = "were dropped" if policy == "drop" else "are kept, also across splits"
    severity: Severity = "warning" if copies else "info"
    said = (
        f"{extra} of {len(rows)} texts stand twice, case and blanks aside; they {what}"
        if copies
        else "no text stands twice"
    )
    findings = [
        Finding("copies", severity, said, [_named(rows, indices) for indices in copies[:MAX_ITEMS]], {"texts": extra})
    ]
    if contradictory:
        said = f"{len(contradictory)} texts carry more than one label" + (
            " and were left out" if policy == "drop" else ""
        )
        items = [_named(rows, indices) for indices in contradictory[:MAX_ITEMS]]
        findings.append(Finding("contradictory labels", "warning", said, items, {"texts": len(contradictory)}))
    return Deduplicated(tuple(row for i, row in enumerate(rows) if i not in gone), tuple(findings))


def normal(text: str) -> str:
    """Return `text` without what two copies may differ in: compatibility forms, case, blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def cut_texts(lengths: npt.NDArray[np.int64], most: int) -> Finding:
    """Say how long texts are in tokens, and how many are cut at `most`."""
    share = float((lengths > most).mean())
    low, middle, high = (int(value) for value in np.quantile(lengths, (0.05, 0.5, 0.95), method="higher"))
    message = (
        f"texts have {low} to {high} tokens (5 to 95 %), half of them {middle} and fewer; {share:.1%} are cut at {most}"
    )
    if share > _LONG:
        message += ": raise model.text.max_length, or put what matters first"
    numbers = {"p5": low, "p50": middle, "p95": high, "max": int(lengths.max()), "cut_share": share}
    return Finding("lengths", "warning" if share > _LONG else "info", message, numbers=numbers)


def scripts(texts: Sequence[str], splits: Sequence[str]) -> Finding:
    """Say which scripts the letters of the texts are in, and warn where a split has another mix."""
    shares = {
        split: _shares(text for text, own in zip(texts, splits, strict=True) if own == split) for split in set(splits)
    }
    whole = _shares(texts)
    mixed = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(whole.items(), key=lambda item: -item[1])[:_SHOWN]
    )
    worst = max(
        (
            max(of.get(name, 0.0) for of in shares.values()) - min(of.get(name, 0.0) for of in shares.values())
            for name in whole
        ),
        default=0.0,
    )
    message = f"letters: {mixed}" + ("; splits differ in it" if worst > _SHIFT else "")
    numbers: dict[str, Evidence] = {"shares": whole, "by_split": shares, "largest_difference": worst}
    return Finding("scripts", "warning" if worst > _SHIFT else "info", message, numbers=numbers)


def _shares(texts: Iterable[str]) -> dict[str, float]:
    """Return the share of letters by script, by the first word of each letter's Unicode name."""
    counted: Counter[str] = Counter()
    for index, text in enumerate(texts):
        if index == _SAMPLE:
            break
        counted.update(script(letter) for letter in text if letter.isalpha())
    total = counted.total()
    return {name: count / total for name, count in counted.items() if count / total >= 0.005}  # noqa: PLR2004 - half a percent


def script(letter: str) -> str:
    """Return the first word of the letter's Unicode name: its script, of letters."""
    return unicodedata.name(letter, "unknown").partition(" ")[0].lower()


def _named(rows: Sequence[SourceRow], indices: Sequence[int]) -> str:
    return " = ".join(f"{rows[i].where} ({rows[i].label})" for i in indices[:_SHOWN])
