"""How many images each class has in each split, and how much a test split of that size can show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from edgeft.data.audit.finding import Finding
from edgeft.verify.power import certifiable_margin_pp

FEW = 100
"""Below this, a class in a split is called small."""
VERY_FEW = 10
"""Below this, a class in a split is called tiny."""
DISCORDANCES = (0.01, 0.02, 0.05)
"""Shares of changed decisions for which the certifiable margin is given; int8 usually changes 1 to 5 %."""

Counts = Mapping[str, Mapping[str, int]]


def count(splits: Sequence[str], labels: Sequence[str], classes: Sequence[str], names: Sequence[str]) -> Counts:
    """Return images by split (of `names`) and class, 0 where there are none."""
    found = Counter(zip(splits, labels, strict=True))
    return {split: {label: found[split, label] for label in classes} for split in names}


def class_counts(counts: Counts, unit: str = "images") -> Finding:
    """Give the counts, and warn of classes with fewer than `FEW` or `VERY_FEW` of `unit` in a split."""
    tiny = [(split, name, n) for split, row in counts.items() for name, n in row.items() if n < VERY_FEW]
    small = [(split, name, n) for split, row in counts.items() for name, n in row.items() if VERY_FEW <= n < FEW]
    totals = ", ".join(f"{split} {sum(row.values())}" for split, row in counts.items())
    parts = [f"{sum(sum(row.values()) for row in counts.values())} {unit} ({totals})"]
    for few, bar in ((tiny, VERY_FEW), (small, FEW)):
        if few:
            named = ", ".join(f"{name!r} in {split}: {n}" for split, name, n in few[:5])
            parts.append(f"fewer than {bar} {unit} of a class: {named}{' ...' if len(few) > 5 else ''}")  # noqa: PLR2004 - as many as are named
    items = [f"{split}: {name}: {n}" for split, name, n in [*tiny, *small]]
    severity: Literal["info", "warning"] = "warning" if tiny or small else "info"
    numbers = {split: dict(row) for split, row in counts.items()}
    return Finding("class counts", severity, "; ".join(parts), items, numbers)


def certifiable_margin(n: int, unit: str = "images") -> Finding:
    """Say which accuracy drop a test split of `n` of `unit` can rule out, by how many decisions change."""
    margins = {f"{share:g}": round(certifiable_margin_pp(n, share), 3) for share in DISCORDANCES}
    parts = ", ".join(f"{margin:.2f} pp if {float(share):.0%} change" for share, margin in margins.items())
    message = (
        f"{n} test {unit} can certify an accuracy drop of at most: {parts} "
        "(share of decisions that compression changes; 95 % one-sided, 90 % power)"
    )
    return Finding("certifiable margin", "info", message, numbers={"n": n, "margin_pp": {**margins}})
