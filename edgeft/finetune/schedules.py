"""Learning-rate schedules as pure functions: share of the run that is done, 0 <= t < 1, -> factor of the peak rate.

    warm-up     t / w for t < w, then the schedule runs over u = (t - w) / (1 - w)
    cosine      (1 + cos(pi u)) / 2                                    (Loshchilov & Hutter 2017, one cycle)
    one_cycle   cosine from 1/25 up to 1 over the warm-up, cosine down to 1/250000 after it    (Smith & Topin 2018)
    step        factor ** floor(t / every)
    constant    1
    range       factor ** (1 - t)                                      (range test, Smith 2017)

All but one_cycle and range start with the same warm-up, over the share w of all steps.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

Schedule: TypeAlias = Callable[[float], float]

_START = 1 / 25
_END = _START / 1e4
"""torch's OneCycleLR defaults: div_factor 25, final_div_factor 1e4."""


def schedule(
    name: Literal["cosine", "one_cycle", "step", "constant", "range"], warmup: float, every: float, factor: float
) -> Schedule:
    """Return the schedule `name`; `every` belongs to "step", `factor` to it and to "range"."""

    def cosine(t: float) -> float:
        return t / warmup if t < warmup else _cosine(1.0, 0.0, (t - warmup) / (1 - warmup))

    def one_cycle(t: float) -> float:
        if t < warmup:
            return _cosine(_START, 1.0, t / warmup)
        return _cosine(1.0, _END, (t - warmup) / (1 - warmup))

    def step(t: float) -> float:
        return t / warmup if t < warmup else factor ** math.floor(t / every)

    def constant(t: float) -> float:
        return t / warmup if t < warmup else 1.0

    def rising(t: float) -> float:
        return float(factor ** (1 - t))

    return {"cosine": cosine, "one_cycle": one_cycle, "step": step, "constant": constant, "range": rising}[name]


def progress(step: int, steps: int) -> float:
    """Return the share of the run at the middle of `step` of `steps`: never 0, so that no step is wasted on rate 0."""
    return (step + 0.5) / steps


def _cosine(start: float, end: float, u: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * u)) / 2
