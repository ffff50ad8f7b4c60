"""Do the splits look alike? Class shares by chi-square, brightness and contrast by Kolmogorov and Smirnov.

    chi2 = sum (observed - expected)^2 / expected     per class: images of the class and others, by split
    D    = sup_x |F_train(x) - F_other(x)|            two-sample statistic, with its p-value

The p-values take images for independent. Where images come in groups (of one part, one camera) they are not, and the
p-values come out too small; so a warning needs a difference that also matters in size.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from edgeft.data.audit.counts import Counts
from edgeft.data.audit.finding import Finding

ALPHA = 0.01
"""A p-value below this, with an effect above the next two, is a warning."""
SHARE_PP = 5.0
"""Difference of a class's share between two splits, in percentage points."""
KS_DISTANCE = 0.2
"""Distance of two distributions of brightness or contrast."""


def class_shift(counts: Counts) -> Finding:
    """Compare each class's share between the splits."""
    table = np.array([list(row.values()) for row in counts.values()], dtype=np.int64)
    totals = table.sum(axis=1)
    shares_pp = 100 * table / totals[:, None]
    classes = list(next(iter(counts.values())))
    items: list[dict[str, str | float]] = []
    warned = []
    for k, name in enumerate(classes):
        test = stats.chi2_contingency(np.stack([table[:, k], totals - table[:, k]]), correction=False)
        spread = float(np.ptp(shares_pp[:, k]))
        items.append({"class": name, "p_value": _rounded(test.pvalue), "spread_pp": round(spread, 3)})
        if test.pvalue < ALPHA and spread > SHARE_PP:
            warned.append(name)
    overall = stats.chi2_contingency(table, correction=False)
    differ = f"the share of {', '.join(map(repr, warned[:5]))} differs between splits" if warned else "alike in splits"
    message = f"class shares: {differ} (chi-square p = {overall.pvalue:.2g})"
    numbers = {"p_value": _rounded(overall.pvalue), "statistic": _rounded(overall.statistic)}
    return Finding("class shares", "warning" if warned else "info", message, items, numbers)


def picture_shift(values: npt.NDArray[np.float64], name: str, splits: Sequence[str], *, grouped: bool) -> Finding:
    """Compare a property of the pictures in val and test with train.

    Args:
        values: float64 [N], e.g. mean brightness.
        name: what it is.
        splits: length N.
        grouped: whether images come in groups, so that p-values are too small.
    """
    at = np.asarray(splits)
    parts: list[str] = []
    numbers: dict[str, dict[str, float]] = {}
    warned = False
    for split in ("val", "test"):
        result = stats.ks_2samp(values[at == "train"], values[at == split])
        numbers[split] = {"statistic": _rounded(result.statistic), "p_value": _rounded(result.pvalue)}
        parts.append(f"{split} D = {result.statistic:.3f}, p = {result.pvalue:.2g}")
        warned |= bool(result.pvalue < ALPHA and result.statistic > KS_DISTANCE)
    caveat = "; images come in groups, so the p-values are too small" if grouped else ""
    verdict = "differs from train" if warned else "no difference that matters"
    message = f"{name}: {verdict} ({'; '.join(parts)}{caveat})"
    return Finding(name, "warning" if warned else "info", message, numbers=numbers)


def _rounded(value: float) -> float:
    """Keep six significant digits, so that equal data give equal text on every machine."""
    return float(f"{value:.6g}")
