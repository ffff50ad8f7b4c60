"""Candidates: the metric against latency, with intervals on both axes."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.markup import Markup, element
from edgeft.report.svg import Scale, axes, dot, drawing, line, padded, text

_WIDTH, _HEIGHT = 860.0, 300.0
_CROWDED = 0.75  # past this share of the width a name stands left of its point
_LEFT, _TOP, _BOTTOM, _RIGHT = 60.0, 34.0, 46.0, 24.0


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate: median latency with the range of its rounds, metric in percent with its interval."""

    name: str
    class_: str
    latency_ms: float
    latency_range: tuple[float, float]
    metric: float
    metric_interval: tuple[float, float] | None


def scatter(points: Sequence[Point], *, metric: str, margin: float | None, title: str, description: str) -> Markup:
    """Return the scatter of `points`; `margin` is the lowest metric (percent) that the user's margin allows.

    Raises:
        ValueError: `points` is empty.
    """
    horizontal = [value for point in points for value in (point.latency_ms, *point.latency_range)]
    vertical = [value for point in points for value in (point.metric, *(point.metric_interval or ()))]
    x = Scale(0.0, 1.12 * max(horizontal), _LEFT, _WIDTH - _RIGHT)
    y = padded([*vertical, *([] if margin is None else [margin])], _HEIGHT - _BOTTOM, _TOP)
    return drawing(
        _WIDTH,
        _HEIGHT,
        axes(x, y, x_name="median latency, ms", y_name=f"{metric}, %"),
        _margin(margin, x, y),
        element("g", *(mark for point in points for mark in _marks(point, x, y))),
        title=title,
        description=description,
    )


def _margin(margin: float | None, x: Scale, y: Scale) -> list[Markup]:
    if margin is None:
        return []
    at = y(margin)
    return [line(x.start, at, x.end, at, "limit"), text(x.start + 6, at - 6, "fp32 less the margin", "label")]


def _marks(point: Point, x: Scale, y: Scale) -> list[Markup]:
    across, up = x(point.latency_ms), y(point.metric)
    left, right = (x(value) for value in point.latency_range)
    marks = [line(left, up, right, up, f"whisker {point.class_}")]
    if point.metric_interval:
        low, high = (y(value) for value in point.metric_interval)
        marks.append(line(across, low, across, high, f"whisker {point.class_}"))
    marks.append(dot(across, up, 7, f"point {point.class_}"))
    crowded = across > x.start + _CROWDED * (x.end - x.start)
    marks.append(
        text(across + (-12 if crowded else 12), up - 10, point.name, "mark-name", "end" if crowded else "start")
    )
    return marks
