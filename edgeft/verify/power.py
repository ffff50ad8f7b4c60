r"""What a test split of n images can certify, before anything is trained.

The accuracy drop is a paired difference: only images on which the two models disagree contribute, so with discordance
p (the share of changed decisions) its variance is at most p / n. Non-inferiority by a margin m is shown at one-sided
level alpha with power 1 - beta when

    n >= (z_{1-alpha} + z_{1-beta})^2 * p / m^2        (Nam 1997, with no true difference)

Defects missed: after 0 misses in n, the largest miss rate still possible at level alpha is 1 - alpha^(1/n).
"""

import math
from statistics import NormalDist

from edgeft.core.errors import UsageError

ALPHA = 0.05
"""One-sided error level: a model that is worse by the whole margin passes at most this often."""
POWER = 0.9
"""How often a model with no true drop passes."""


def images_needed(margin_pp: float, discordance: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return how many images certify a drop of at most `margin_pp` percentage points.

    Args:
        margin_pp: the margin in percentage points, above 0.
        discordance: share of changed decisions, 0..1.
        alpha: one-sided error level.
        power: how often an equal model must pass.

    Raises:
        UsageError: an argument is outside its range.
    """
    if not margin_pp > 0:
        raise UsageError(f"margin {margin_pp} pp: must be above 0", hint="set verify.accuracy.max_drop_pp")
    return max(1, math.ceil(_factor(discordance, alpha, power) / (margin_pp / 100) ** 2))


def certifiable_margin_pp(n: int, discordance: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest margin, in percentage points, that `n` images certify; the inverse of `images_needed`.

    Args:
        n: images in the test split, at least 1.
        discordance: share of changed decisions, 0..1.
        alpha: one-sided error level.
        power: how often an equal model must pass.

    Raises:
        UsageError: an argument is outside its range.
    """
    if n < 1:
        raise UsageError(f"{n} images: a split needs at least one to certify anything")
    return 100 * math.sqrt(_factor(discordance, alpha, power) / n)


def largest_unseen_rate(n: int, *, alpha: float = ALPHA) -> float:
    """Return the largest failure rate that 0 failures in `n` trials leave possible, at confidence 1 - `alpha`.

    Raises:
        UsageError: `n` is below 1.
    """
    if n < 1:
        raise UsageError(f"{n} trials prove nothing")
    return 1 - math.pow(alpha, 1 / n)


def _factor(discordance: float, alpha: float, power: float) -> float:
    if not (0 <= discordance <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise UsageError(f"discordance {discordance}, alpha {alpha}, power {power}: each must lie between 0 and 1")
    normal = NormalDist()
    return math.pow(normal.inv_cdf(1 - alpha) + normal.inv_cdf(power), 2) * discordance
