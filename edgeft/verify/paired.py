r"""How much worse one model is than another on the same images, with an interval that can be acted on.

    drop = metric(a) - metric(b)        in percentage points; positive: b is worse

    accuracy             Tango's score interval of paired proportions (Statistics in Medicine 17, 1998)
    balanced accuracy    one such interval per class, added by squares (MOVER, Zou & Donner 2008)
    macro F1             paired bootstrap, never narrower than Tango's interval
    metrics of ranking   paired bootstrap

Where the two models hardly ever disagree a bootstrap cannot see what it has not drawn: with no disagreement at all it
would claim certainty, where Tango's interval reaches to z^2 / (n + z^2). Metrics of ranking take that bound per class
where their bootstrap is a single point.

An accuracy drop can never exceed the share of changed decisions, which needs no labels: `discordance_bound_pp`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeft.core.metrics import RANKING
from edgeft.core.record import Verdict
from edgeft.verify.accuracy import (
    Floats,
    Ints,
    check_scores,
    decisions,
    metric_value,
)
from edgeft.verify.decision import HIGHEST, Decision
from edgeft.verify.distributions import CONFIDENCE, clopper_pearson, normal_quantile
from edgeft.verify.resampling import RESAMPLES, percentiles, resampled_metric
from edgeft.verify.verdicts import at_most

_SCORED = {
    "accuracy": "Tango's score interval",
    "balanced_accuracy": "Tango's score intervals by class, added by squares",
}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A drop from model a to model b in percentage points: positive means b is worse.

    Args:
        value_pp: the estimate.
        low_pp: lower end of the interval.
        high_pp: upper end: the worst drop still possible.
        n: images.
    """

    value_pp: float
    low_pp: float
    high_pp: float
    n: int


def paired_difference(  # noqa: PLR0913 - two models, one truth, one seed
    metric: str,
    labels: Ints,
    scores_a: Floats,
    scores_b: Floats,
    n_classes: int,
    seed: int,
    n_resamples: int = RESAMPLES,
    *,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Return the drop of `metric` from model a to model b.

    Args:
        metric: one of `accuracy.METRICS`.
        labels: int64 [N].
        scores_a: float [N, K] of the reference model.
        scores_b: float [N, K] of the model under test, on the same images.
        n_classes: K.
        seed: of the resampling.
        n_resamples: bootstrap resamples.
        confidence: two-sided.

    Raises:
        UsageError: the metric is unknown.
        DataError: the set is empty, a class is absent, scores are not finite, or shapes do not fit.
    """
    for scores in (scores_a, scores_b):
        check_scores(metric, labels, scores, n_classes)
    value = metric_value(metric, labels, scores_a, n_classes) - metric_value(metric, labels, scores_b, n_classes)
    low = high = value
    if metric not in _SCORED:
        of_a, of_b = resampled_metric(metric, labels, (scores_a, scores_b), n_classes, seed, n_resamples)
        low, high = percentiles(labels, of_a - of_b, confidence)
    if metric not in RANKING:
        below, above = _score_distances(metric, labels, decisions(scores_a), decisions(scores_b), confidence)
        low, high = min(low, value - below), max(high, value + above)
    elif low == high:
        unseen = math.hypot(*(tango_interval(0, 0, int(n), confidence=confidence)[1] for n in np.bincount(labels)))
        low, high = value - unseen, value + unseen
    return PairedDifference(
        value_pp=100 * value,
        low_pp=100 * max(-1.0, min(low, value)),
        high_pp=100 * min(1.0, max(high, value)),
        n=len(labels),
    )


@dataclass(frozen=True, slots=True)
class JudgedDrop:
    """A drop held against a margin.

    Args:
        found: the paired difference.
        changed: how many decisions differ.
        bound_pp: the most that any accuracy drop can be, by the share of changed decisions.
        verdict: of the drop against the margin.
        method: what the verdict rests on, in words.
    """

    found: PairedDifference
    changed: int
    bound_pp: float
    verdict: Verdict
    method: str


def judge_drop(  # noqa: PLR0913 - two models, one truth, one margin
    metric: str,
    labels: Ints,
    base: Floats,
    new: Floats,
    n_classes: int,
    seed: int,
    limit_pp: float,
    *,
    n_resamples: int = RESAMPLES,
    rules: tuple[Decision, Decision] = (HIGHEST, HIGHEST),
) -> JudgedDrop:
    """Hold the drop of `metric` from `base` to `new` against `limit_pp`; for the rest see `paired_difference`.

    `rules` are how each of the two decides. Where the interval cannot tell, an accuracy drop passes by the share of
    changed decisions, which it cannot exceed.
    """
    changed = int((rules[0].decided(base) != rules[1].decided(new)).sum())
    base, new = rules[0].scores_for(metric, base), rules[1].scores_for(metric, new)
    found = paired_difference(metric, labels, base, new, n_classes, seed, n_resamples)
    bound = discordance_bound_pp(changed, len(labels))
    verdict, method = at_most(found.low_pp, found.high_pp, limit_pp), interval_method(metric, n_resamples)
    if verdict is not Verdict.PASS and metric == "accuracy" and bound <= limit_pp:
        verdict, method = Verdict.PASS, f"share of changed decisions, at most {bound:.2f} % (Clopper-Pearson, 95 %)"
    return JudgedDrop(found, changed, bound, verdict, method)


def interval_method(metric: str, n_resamples: int = RESAMPLES) -> str:
    """Return what the interval of a drop of `metric` rests on, in words."""
    how = _SCORED.get(metric, f"paired bootstrap, {n_resamples} resamples")
    return f"{how}; {CONFIDENCE:.0%} two-sided, so each end is a one-sided {(1 + CONFIDENCE) / 2:.0%} bound"


def discordance_bound_pp(changed: int, n: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the upper bound on the share of changed decisions, hence on any accuracy drop, in percentage points.

    Args:
        changed: images whose decision differs between the two models.
        n: images.
        confidence: two-sided; the bound is one-sided at (1 + confidence) / 2.
    """
    return 100 * clopper_pearson(changed, n, confidence)[1]


def tango_interval(lost: int, gained: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of (lost - gained) / n, the paired difference of two proportions (Tango 1998).

    Args:
        lost: images that only model a gets right.
        gained: images that only model b gets right.
        n: all images.
        confidence: two-sided.
    """
    z = normal_quantile((1 + confidence) / 2)
    estimate = (lost - gained) / n

    def score(delta: float) -> float:
        b = -lost - gained + (2 * n - lost + gained) * delta
        c = -gained * delta * (1 - delta)
        gained_rate = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * gained_rate + delta * (1 - delta))
        return (lost - gained - n * delta) / math.sqrt(variance) if variance > 0 else math.inf * (estimate - delta)

    return _crossing(score, -1.0, estimate, z), _crossing(score, estimate, 1.0, -z)


def _crossing(decreasing: Callable[[float], float], low: float, high: float, target: float) -> float:
    for _ in range(100):
        middle = (low + high) / 2
        if decreasing(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score_distances(
    metric: str, labels: Ints, decided_a: Ints, decided_b: Ints, confidence: float
) -> tuple[float, float]:
    """Return how far the score interval reaches below and above its estimate, as fractions."""
    lost = (decided_a == labels) & (decided_b != labels)
    gained = (decided_b == labels) & (decided_a != labels)
    strata = labels if metric == "balanced_accuracy" else np.zeros_like(labels)
    below, above = [], []
    for stratum in np.unique(strata):
        inside = strata == stratum
        n, worse, better = int(inside.sum()), int(lost[inside].sum()), int(gained[inside].sum())
        low, high = tango_interval(worse, better, n, confidence=confidence)
        below.append((worse - better) / n - low)
        above.append(high - (worse - better) / n)
    return math.hypot(*below) / len(below), math.hypot(*above) / len(above)
