r"""Quantiles and exact intervals without scipy, for the device install.

The regularised incomplete beta function I_x(a, b) carries everything here:

    P(Binomial(n, p) <= k)  = I_{1-p}(n - k, k + 1)
    P(Student_df <= t)      = 1 - I_{df/(df+t^2)}(df/2, 1/2) / 2        (t >= 0)

It is evaluated by Lentz's continued fraction (DLMF 8.17.22); quantiles by bisection, which cannot diverge.
"""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

CONFIDENCE = 0.90
"""Two-sided confidence of every gate's interval: each of its ends is a one-sided 95 % bound."""

_TINY = 1e-300
_EPSILON = 1e-16
_MAX_TERMS = 10_000


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), 0..1, for a, b > 0."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(Binomial(n, p) <= k)."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else incomplete_beta(1 - p, n - k, k + 1)


@cache
def t_quantile(probability: float, df: float) -> float:
    """Return Student's t quantile, for 0 < probability < 1 and df > 0."""
    tail = min(probability, 1 - probability)
    if tail == 0.5:  # noqa: PLR2004 - the median
        return 0.0
    y = _bisect(lambda x: incomplete_beta(x, df / 2, 0.5) - 2 * tail)
    value = math.sqrt(df * (1 - y) / y)
    return value if probability > tail else -value


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate from `k` of `n` (Clopper & Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else _bisect(lambda p: incomplete_beta(p, k, n - k + 1) - tail)
    high = 1.0 if k == n else _bisect(lambda p: incomplete_beta(p, k + 1, n - k) - (1 - tail))
    return low, high


def wilson(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a rate from `k` of `n` (Wilson 1927)."""
    z = normal_quantile((1 + confidence) / 2)
    rate, shrink = k / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile."""
    return NormalDist().inv_cdf(probability)


def _bisect(increasing: Callable[[float], float]) -> float:
    """Return the root in (0, 1) of an increasing function, to the last bit."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in {low, high}:
            return middle
        if increasing(middle) < 0:
            low = middle
        else:
            high = middle


def _beta_fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return fraction


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
