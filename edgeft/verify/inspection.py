"""What decisions mean on the line: bad parts that escape, good parts that are stopped, each with an exact interval.

    escape     share of bad parts that are decided to be good
    overkill   share of good parts that are decided to be bad, without a review
    review     share of parts that a person should look at; they do not escape, and are no overkill

Intervals are Clopper and Pearson's, two-sided: each end is a one-sided 95 % bound. 0 escapes of n bad parts prove only
that the escape rate is below the upper end: 9.5 % for 30 parts, 1 % for 299.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.core.errors import DataError
from edgeft.verify.distributions import clopper_pearson


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `n`, with the exact interval of its share; 0 of 0 has the interval 0 to 1.

    Args:
        count: how many.
        n: of how many.
        low: lower end of the share.
        high: upper end of the share.
    """

    count: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Rates of a task with one class of good parts.

    Args:
        escape: over all bad classes.
        overkill: of the good class.
        by_class: class index -> escape rate, of each bad class.
        review: over all parts.
        review_good: of the good class.
    """

    escape: Rate
    overkill: Rate
    by_class: dict[int, Rate]
    review: Rate
    review_good: Rate


def rate(count: int, n: int) -> Rate:
    """Return the rate of `count` of `n`."""
    low, high = clopper_pearson(count, n) if n else (0.0, 1.0)
    return Rate(count, n, low, high)


def inspection(matrix: Sequence[Sequence[float]], ok: int, reviewed: Sequence[float] | None = None) -> Inspection:
    """Return the rates of a confusion matrix [K, K], rows truth and columns decisions.

    Args:
        matrix: counts.
        ok: index of the class of good parts.
        reviewed: by true class, how many are for review, all of them decided to be bad; None: none are.

    Raises:
        DataError: there is no such class.
    """
    if not 0 <= ok < len(matrix):
        raise DataError(f"class index {ok} of good parts: there are {len(matrix)} classes")
    rows = [[int(cell) for cell in row] for row in matrix]
    by_class = {index: rate(row[ok], sum(row)) for index, row in enumerate(rows) if index != ok}
    escaped, bad = (sum(part) for part in zip(*((each.count, each.n) for each in by_class.values()), strict=True))
    good, held = sum(rows[ok]), [0] * len(rows) if reviewed is None else [int(cell) for cell in reviewed]
    return Inspection(
        escape=rate(escaped, bad),
        overkill=rate(good - rows[ok][ok] - held[ok], good),
        by_class=by_class,
        review=rate(sum(held), good + bad),
        review_good=rate(held[ok], good),
    )
