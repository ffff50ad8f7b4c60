r"""Latency statistics: quantiles with order-statistic intervals, and the ratio of two models from ABBA rounds.

A round is four fresh processes in the order A B B A; the statistic of a process is the median of its samples. With a
and b the medians, round i gives

    d_i = (log b_1 + log b_2 - log a_1 - log a_2) / 2        linear drift cancels, process offsets average

and the ratio is exp(mean d) with a Student interval on d. Within a process samples are dependent, so rounds, not
samples, are the unit. The two A runs of a round are the A/A control: they differ by noise alone.

A baseline is from another day, so its rounds cannot take turns with new ones. Both days the model takes turns with one
reference graph instead; with x and y the d_i of the model against the reference then and now,

    log ratio = mean y - mean x        with Welch's interval: how fast the machine is on a day cancels

What changes between days for the model and not for the reference does not cancel: `DAY_DRIFT` widens the interval.

Looking several times (9 > 15 > 25 > 40 rounds) gives chance several tries, so each look uses a smaller tail, the
earlier ones the smallest (Wang & Tsiatis 1987, with Delta = 0.15):

    tail of a look at n of N rounds = 1 - Phi(B (n / N)^(-0.35))

`BOUNDARY` B keeps the chance of any wrong PASS over all four looks at 5 % (found by simulation of 300,000 runs with
Student intervals; held by a test). A FAIL of two models must come out of two independent sets of rounds, so each set
looks at its FAIL with the milder `FAIL_BOUNDARY`: both together are wrong in less than 1 % of comparisons, and find
+10 % in 95 % or more where processes differ by 8 %, whatever the shape of that noise. The same tail at each look
(Pocock's design) finds fewer at the same error.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import UsageError
from edgeft.verify.distributions import CONFIDENCE, binomial_cdf, t_quantile

LOOKS = (9, 15, 25, 40)
"""Rounds after which a verdict is sought."""
BOUNDARY = 1.77
FAIL_BOUNDARY = 1.53
"""In place of `BOUNDARY` where a FAIL must come out of two independent sets of rounds."""
DAY_DRIFT = 0.02
"""Of a ratio between days: half width for what a day does to one graph and not to another."""
MIN_ROUNDS = 3
"""Fewer rounds give no usable spread."""

PairedRuns: TypeAlias = npt.NDArray[np.float64]
"""float64 [rounds, 2]: medians in ms of one arm's two processes per round, in the order they ran."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of latency in ms with its order-statistic interval (each end a one-sided 95 % bound)."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio new / base over ABBA rounds; below 1 the new model is faster."""

    value: float
    low: float
    high: float
    rounds: int


def min_samples(q: float) -> int:
    """Return the fewest samples whose largest exceeds the `q` quantile with 95 % confidence: 299 for 0.99.

    Raises:
        UsageError: q is not between 0 and 1.
    """
    if not 0 < q < 1:
        raise UsageError(f"quantile {q}: must lie between 0 and 1")
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(max(q, 1 - q)))


def quantile(samples_ms: Sequence[float], q: float) -> Quantile | None:
    """Return the `q` quantile with its order-statistic interval, or None below `min_samples(q)`.

    The interval takes the ranks l and u with P(Binomial(n, q) < l) <= tail and P(Binomial(n, q) >= u) <= tail: no
    distribution is assumed.

    Args:
        samples_ms: latencies in ms, any order.
        q: 0..1.
    """
    n = len(samples_ms)
    if n < min_samples(q):
        return None
    ordered = np.sort(np.asarray(samples_ms, dtype=np.float64))
    tail = (1 - CONFIDENCE) / 2
    lower = _largest(n, lambda rank: binomial_cdf(rank - 1, n, q) <= tail)
    upper = n + 1 - _largest(n, lambda rank: binomial_cdf(rank - 1, n, 1 - q) <= tail)
    return Quantile(
        value_ms=float(np.quantile(ordered, q, method="inverted_cdf")),
        low_ms=float(ordered[max(lower, 1) - 1]),
        high_ms=float(ordered[min(upper, n) - 1]),
    )


def ratio(base: PairedRuns, new: PairedRuns, tail: float | None = None) -> Ratio:
    """Return new / base from ABBA rounds, with its interval.

    Args:
        base: medians of the A runs.
        new: medians of the B runs.
        tail: one-sided error of each end; None: that of a last look.

    Raises:
        UsageError: there are fewer than `MIN_ROUNDS` rounds, or the arms do not pair up.
    """
    logs = round_logs(base, new)
    centre, half = float(logs.mean()), _half_width(logs, tail)
    return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half), len(logs))


def round_logs(base: PairedRuns, new: PairedRuns) -> npt.NDArray[np.float64]:
    """Return d_i, float64 [rounds]: the log ratio new / base of each ABBA round.

    Raises:
        UsageError: there are fewer than `MIN_ROUNDS` rounds, or the arms do not pair up.
    """
    if base.shape != new.shape or base.shape[1:] != (2,) or len(base) < MIN_ROUNDS:
        raise UsageError(
            f"rounds of shape {base.shape} and {new.shape}: two runs per arm and {MIN_ROUNDS} rounds are needed"
        )
    return np.asarray((np.log(new) - np.log(base)).mean(axis=1))


def ratio_to_baseline(then: npt.NDArray[np.float64], now: npt.NDArray[np.float64], tail: float | None = None) -> Ratio:
    """Return now / then of one model from its `round_logs` against the same reference on two days.

    Args:
        then: float64 [rounds], of the baseline.
        now: float64 [rounds].
        tail: one-sided error of each end; None: that of a last look.

    Raises:
        UsageError: a side has fewer than `MIN_ROUNDS` rounds.
    """
    if min(len(then), len(now)) < MIN_ROUNDS:
        raise UsageError(f"{len(then)} rounds then and {len(now)} now: {MIN_ROUNDS} are needed")
    parts = [float(side.var(ddof=1)) / len(side) for side in (then, now)]
    spread = math.sqrt(sum(parts))
    half = DAY_DRIFT
    if spread > 0:
        freedom = spread**4 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (then, now), strict=True))
        half += t_quantile(1 - _tail(tail), freedom) * spread
    centre = float(now.mean() - then.mean())
    return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half), len(now))


def noise_floor(base: PairedRuns) -> float:
    """Return the relative change that these rounds could just tell from none, by the A/A control alone.

    The log ratio of a round's two A runs has twice the variance of a run; a round's d_i averages four runs, so it has
    half of that: the floor is the half width that `ratio` would have were the two models the same file.
    """
    control = (np.log(base[:, 1]) - np.log(base[:, 0])) / math.sqrt(2)
    return math.expm1(_half_width(control, None))


def look_tail(rounds: int, last: int, boundary: float = BOUNDARY) -> float:
    """Return the one-sided error of a look after `rounds`, where `last` is the number of rounds of the last look."""
    return 1 - NormalDist().cdf(boundary * math.pow(min(rounds, last) / last, -0.35))


def _tail(tail: float | None) -> float:
    return look_tail(1, 1) if tail is None else tail


def _half_width(values: npt.NDArray[np.float64], tail: float | None) -> float:
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    return t_quantile(1 - _tail(tail), len(values) - 1) * spread


def _largest(n: int, holds: Callable[[int], bool]) -> int:
    """Return the largest rank in 1..n at which a condition that turns false once holds, 0 where none."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
