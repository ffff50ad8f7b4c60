"""Latency samples of each arm, all of them: one thin row for each fresh process, in the order they ran.

Height shows drift from the first process (top) to the last, width shows spread, the far right shows the tail.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.markup import Markup, element
from edgeft.report.numbers import count, milliseconds
from edgeft.report.svg import Scale, axes, dot, drawing, line, padded, strokes, text

_WIDTH = 860.0
_LEFT, _TOP, _BOTTOM, _RIGHT = 84.0, 14.0, 46.0, 20.0
_GAP, _LOWEST_BLOCK, _HIGHEST_BLOCK, _ROW = 26.0, 64.0, 150.0, 6.0
_TAIL = 0.95
_FAR = 2.0  # samples beyond this multiple of the larger 95 % quantile would squeeze all others into a line


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: its samples by process, in the order they were measured."""

    name: str
    class_: str
    median_ms: float
    processes_ms: Sequence[Sequence[float]]

    def samples(self) -> list[float]:
        """Return all samples, in order."""
        return [value for process in self.processes_ms for value in process]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the `q` quantile of `values` by linear interpolation (Hyndman & Fan 1996, type 7).

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("a quantile of no values was asked for")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def samples_chart(arms: Sequence[Arm], *, title: str, description: str) -> Markup:
    """Return the samples of `arms` over one axis in ms; what lies too far right is counted at the edge.

    Raises:
        ValueError: an arm has no sample.
    """
    everything = [arm.samples() for arm in arms]
    edge = _FAR * max(quantile(samples, _TAIL) for samples in everything)
    shown = [value for samples in everything for value in samples if value <= edge]
    x = padded([*shown, *(arm.median_ms for arm in arms)], _LEFT, _WIDTH - _RIGHT, 0.03)
    block = min(_HIGHEST_BLOCK, max(_LOWEST_BLOCK, _ROW * max(len(arm.processes_ms) for arm in arms)))
    height = _TOP + len(arms) * (block + _GAP) + _BOTTOM
    bottom = Scale(0, 1, height - _BOTTOM, height - _BOTTOM)
    return drawing(
        _WIDTH,
        height,
        axes(x, bottom, x_name="ms for one image (the axis does not start at zero)", y_name="", x_ticks=8, y_ticks=0),
        [_block(arm, x, _TOP + index * (block + _GAP), block, edge) for index, arm in enumerate(arms)],
        title=title,
        description=description,
    )


def _block(arm: Arm, x: Scale, top: float, height: float, edge: float) -> Markup:
    row = height / len(arm.processes_ms)
    ticks = [
        (x(value), top + index * row)
        for index, process in enumerate(arm.processes_ms)
        for value in process
        if value <= edge
    ]  # fmt: skip
    centres = [
        dot(x(quantile(process, 0.5)), top + (index + 0.5) * row, min(3.0, 0.45 * row), f"centre {arm.class_}")
        for index, process in enumerate(arm.processes_ms)
        if process
    ]
    return element(
        "g",
        line(x.start, top + height + 6, x.end, top + height + 6, "grid"),
        strokes(ticks, 0.8 * row, f"tick {arm.class_}"),
        line(x(arm.median_ms), top - 4, x(arm.median_ms), top + height + 4, f"median {arm.class_}"),
        centres,
        text(0, top + height / 2 - 2, arm.name, f"mark-name {arm.class_}"),
        text(0, top + height / 2 + 15, milliseconds(arm.median_ms)),
        _beyond(arm, x, top + height, edge),
    )


def _beyond(arm: Arm, x: Scale, bottom: float, edge: float) -> Markup | None:
    far = [value for value in arm.samples() if value > edge]
    if not far:
        return None
    return text(x.end, bottom, f"{count(len(far))} more, up to {milliseconds(max(far))} \u25b8", anchor="end")
