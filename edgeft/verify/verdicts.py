"""From an interval and a limit to a verdict: what cannot be decided says so."""

from edgeft.core.record import Verdict


def at_most(low: float, high: float, limit: float) -> Verdict:
    """PASS where the whole interval is within `limit`, FAIL where all of it is above, else INCONCLUSIVE.

    This is non-inferiority when the interval is that of a drop and `limit` the margin: what matters is the worse end,
    not whether the drop is significant.
    """
    if high <= limit:
        return Verdict.PASS
    return Verdict.FAIL if low > limit else Verdict.INCONCLUSIVE


def below(low: float, high: float, limit: float) -> Verdict:
    """Like `at_most`, but equality is not enough: an unchanged model is not "faster"."""
    if high < limit:
        return Verdict.PASS
    return Verdict.FAIL if low > limit else Verdict.INCONCLUSIVE
