"""Times optimizer steps of a training loop that reports each, and stops it after enough of them."""

import time
from collections.abc import Callable


class Enough(Exception):  # noqa: N818 - no error: the benchmark has seen enough steps
    """Stops a run after the timed steps."""


def stopwatch(warmup: int, steps: int) -> tuple[Callable[[], None], list[float]]:
    """Return a function to call after each step, and the list of the timed steps' seconds that it fills."""
    seconds: list[float] = []
    marks: list[float] = []

    def tick() -> None:
        marks.append(time.perf_counter())
        if len(marks) > warmup + 1:
            seconds.append(marks[-1] - marks[-2])
        if len(seconds) == steps:
            raise Enough

    return tick, seconds
