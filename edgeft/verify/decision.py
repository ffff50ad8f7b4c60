r"""From scores to decisions: the class with the highest score, or a threshold on how bad a part looks.

    b = 1 - score of the class of good parts
    b < stop_at                 good
    stop_at <= b < sure_at      the likeliest bad class, for REVIEW: a person should look at it
    b >= sure_at                the likeliest bad class

`fit` places both on validation so that two rates hold in expectation: with n parts and one new one, exchangeable,

    E[rate of the new one] <= (count + 1) / (n + 1)

`stop_at` is the highest threshold with an escape rate within its limit, `sure_at` the lowest with an overkill rate
within its limit. Where the first reaches the second, no part needs a review. Source: conformal risk control for a 0/1
loss (Angelopoulos et al. 2022).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError
from edgeft.core.metrics import RANKING
from edgeft.verify.accuracy import Doubles, Floats, Ints, decisions

ARGMAX, THRESHOLD = "argmax", "threshold"


@dataclass(frozen=True, slots=True)
class Decision:
    """A rule; without thresholds, the highest score decides.

    Args:
        ok: index of the class of good parts; None decides by the highest score.
        stop_at: lowest badness that is not let pass.
        sure_at: lowest badness that needs no review; at least `stop_at`.
    """

    ok: int | None = None
    stop_at: float = 0.0
    sure_at: float = 0.0

    def __post_init__(self) -> None:
        if self.ok is not None and not (self.ok >= 0 and 0 < self.stop_at <= self.sure_at <= 1):
            raise DataError(f"thresholds {self.stop_at} and {self.sure_at}: expected 0 < stop_at <= sure_at <= 1")

    def decided(self, scores: Floats) -> Ints:
        """Return the decided class of each row of `scores` [N, K]: int64 [N]."""
        if self.ok is None:
            return decisions(scores)
        bad = np.array(scores, dtype=np.float64)
        bad[:, self.ok] = -np.inf
        return np.where(badness(scores, self.ok) < self.stop_at, self.ok, bad.argmax(axis=1)).astype(np.int64)

    def review(self, scores: Floats) -> npt.NDArray[np.bool_]:
        """Return which rows of `scores` [N, K] a person should look at: bool [N]."""
        if self.ok is None:
            return np.zeros(len(scores), dtype=np.bool_)
        found = badness(scores, self.ok)
        return np.asarray((found >= self.stop_at) & (found < self.sure_at))

    def scores_for(self, metric: str, scores: Floats) -> Floats:
        """Return what `metric` is computed on, float [N, K], where decisions are those of the highest score.

        Metrics of ranking need `scores` as they are; for others a threshold's decision gets 1 and the rest 0. Rows
        that hold NaN or infinity stay as they are, to be refused.
        """
        if metric in RANKING or self.ok is None:
            return scores
        finite = np.isfinite(scores).all(axis=1, keepdims=True)
        return np.where(finite, np.eye(scores.shape[1])[self.decided(scores)], scores)

    def to_json(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return JSON values, the class by name."""
        if self.ok is None:
            return {"method": ARGMAX}
        return {"method": THRESHOLD, "ok": classes[self.ok], "stop_at": self.stop_at, "sure_at": self.sure_at}

    @classmethod
    def from_json(cls, values: dict[str, Any], classes: tuple[str, ...]) -> "Decision":
        """Read what `to_json` gave; further keys are left alone.

        Raises:
            DataError: the method is not known, the class is none of `classes`, or the thresholds are no thresholds.
        """
        if values.get("method") == ARGMAX:
            return cls()
        try:
            ok, stop_at, sure_at = values["ok"], float(values["stop_at"]), float(values["sure_at"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"decision {values} is not known") from error
        if values["method"] != THRESHOLD or ok not in classes:
            raise DataError(f"decision {values} is not known for the classes {', '.join(classes)}")
        return cls(classes.index(ok), stop_at, sure_at)


HIGHEST = Decision()
"""The class with the highest score."""


def badness(scores: Floats, ok: int) -> Doubles:
    """Return 1 - score of class `ok`, float64 [N]."""
    return np.asarray(1.0 - scores[:, ok].astype(np.float64))


def fit(
    labels: Ints, scores: Floats, ok: int, *, max_escape: float | None = None, max_overkill: float | None = None
) -> Decision:
    """Return the thresholds that hold the limits in expectation.

    Args:
        labels: int64 [N] of validation parts.
        scores: float [N, K] of the model that ships.
        ok: index of the class of good parts.
        max_escape: largest share of bad parts that may pass; None: as many as `max_overkill` makes pass.
        max_overkill: largest share of good parts that may be stopped without a review; None likewise.

    Raises:
        DataError: no limit is given, or there are too few parts for one; names how many it needs.
    """
    b = badness(scores, ok)
    stop_at = None if max_escape is None else _highest_stop(b, labels != ok, max_escape)
    sure_at = None if max_overkill is None else _lowest_stop(b, labels == ok, max_overkill)
    if stop_at is not None and sure_at is not None:
        if stop_at < sure_at:
            return Decision(ok, stop_at, sure_at)
        stop_at = sure_at = (stop_at + sure_at) / 2
    found = stop_at if stop_at is not None else sure_at
    if found is None:
        raise DataError("a threshold needs max_escape or max_overkill")
    return Decision(ok, found, found)


def _highest_stop(b: Doubles, bad: npt.NDArray[np.bool_], limit: float) -> float:
    """Return the highest threshold below which no more bad parts lie than `limit` allows.

    It stands half way to the next lower part, so that a rounding error decides no part otherwise.
    """
    allowed = _allowed(int(bad.sum()), limit, "bad", "max_escape")
    worst = np.sort(b[bad])[allowed]
    lower = b[b < worst]
    found = float((worst + lower.max()) / 2) if lower.size else float(worst / 2)
    if found <= 0:
        raise DataError(f"max_escape {limit:g}: bad parts score as good as can be, so no threshold stops them")
    return found


def _lowest_stop(b: Doubles, good: npt.NDArray[np.bool_], limit: float) -> float:
    """Return the lowest threshold at or above which no more good parts lie than `limit` allows."""
    allowed = _allowed(int(good.sum()), limit, "good", "max_overkill")
    worst = -np.sort(-b[good])[allowed]
    higher = b[b > worst]
    found = float((worst + higher.min()) / 2) if higher.size else float((worst + 1) / 2)
    if found <= worst:
        raise DataError(f"max_overkill {limit:g}: good parts score as bad as can be, so no threshold lets them pass")
    return found


def parts_needed(limit: float) -> int:
    """Return how many validation parts a limit needs at least: 1 / limit - 1."""
    return math.ceil(1 / limit - 1e-9) - 1


def _allowed(n: int, limit: float, what: str, key: str) -> int:
    allowed = math.floor(limit * (n + 1) + 1e-9) - 1
    if allowed < 0:
        raise DataError(
            f"{key} {limit:g}: {n} {what} validation parts are too few to hold it",
            hint=f"it needs {parts_needed(limit)}; raise the limit or data.split.val",
        )
    return min(allowed, n - 1)
