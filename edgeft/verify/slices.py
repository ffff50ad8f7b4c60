r"""Accuracy by slice of the data (camera, supplier, shift), and how far the worst slice lies behind the best.

The gap's interval is Newcombe's for two independent proportions, from their Wilson intervals (Statistics in Medicine
17, 1998, method 10):

    gap - sqrt((p1 - l1)^2 + (u2 - p2)^2)  ..  gap + sqrt((u1 - p1)^2 + (p2 - l2)^2)

Best and worst are picked by looking, so with S slices each of the S (S - 1) / 2 pairs gets an equal part of the error
(Bonferroni): the interval holds for whichever pair turns out to be the extreme one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeft.verify.distributions import CONFIDENCE, wilson


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the worst slice lies behind the best, as a share.

    Args:
        best: its name.
        worst: its name.
        value: accuracy of the best less that of the worst.
        low: lower end of the interval.
        high: upper end.
    """

    best: str
    worst: str
    value: float
    low: float
    high: float


def accuracy_gap(right: npt.NDArray[np.bool_], slices: Sequence[str], confidence: float = CONFIDENCE) -> Gap | None:
    """Return the gap between the slices with the highest and the lowest accuracy; None where there is one slice.

    Args:
        right: which decisions are right, bool [N].
        slices: name of the slice of each, length N.
        confidence: two-sided.
    """
    names = sorted(set(slices))
    if len(names) < 2:  # noqa: PLR2004 - a gap has two sides
        return None
    of = np.asarray(slices)
    counts = {name: (int(right[of == name].sum()), int((of == name).sum())) for name in names}
    best, worst = (pick(names, key=lambda name: counts[name][0] / counts[name][1]) for pick in (max, min))
    if best == worst:  # all are equal
        worst = names[1]
    pairs = len(names) * (len(names) - 1) // 2
    low, high = newcombe(*counts[best], *counts[worst], confidence=1 - (1 - confidence) / pairs)
    shares = [counts[name][0] / counts[name][1] for name in (best, worst)]
    return Gap(best, worst, shares[0] - shares[1], low, high)


def newcombe(k1: int, n1: int, k2: int, n2: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of k1/n1 - k2/n2 for two independent samples."""
    p1, p2 = k1 / n1, k2 / n2
    (l1, u1), (l2, u2) = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    gap = p1 - p2
    return gap - math.hypot(p1 - l1, u2 - p2), gap + math.hypot(u1 - p1, p2 - l2)
