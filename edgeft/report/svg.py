"""Small pure-Python SVG: scales with round ticks, a frame with axes, and the few marks that the charts are made of.

Colours come from classes in style.css, so light, dark and print need no second drawing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.markup import Content, Markup, element
from edgeft.report.numbers import fixed

_ROUND_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from data `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return about `about` round values within the scale."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def label(self, value: float, about: int = 5) -> str:
        """Return `value` with as many decimals as the tick step needs."""
        step = _round_step((self.high - self.low) / about)
        return fixed(value, max(0, -math.floor(math.log10(step) + 1e-9)))


def padded(values: Sequence[float], start: float, end: float, padding: float = 0.08) -> Scale:
    """Return a scale over `values` with room on both sides; equal values get an artificial width.

    Raises:
        ValueError: `values` is empty.
    """
    low, high = min(values), max(values)
    width = high - low or max(abs(high), 1.0) * 0.1
    return Scale(low - padding * width, high + padding * width, start, end)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return power * next(step for step in _ROUND_STEPS if raw / power <= step + 1e-9)


def drawing(
    width: float, height: float, *content: Content, title: str, description: str, class_: str = "chart"
) -> Markup:
    """Return an `<svg>` of `width` x `height` units that a screen reader can name and describe."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        class_=class_,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, content: str, class_: str = "label", anchor: str = "start") -> Markup:
    """Return a text whose baseline starts, centres or ends at (x, y)."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def dot(x: float, y: float, radius: float, class_: str) -> Markup:
    """Return a filled circle."""
    return element("circle", cx=x, cy=y, r=radius, class_=class_)


def box(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a rectangle between two corners."""
    left, top = min(x1, x2), min(y1, y2)
    return element("rect", x=left, y=top, width=abs(x2 - x1), height=abs(y2 - y1), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through `points`."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def strokes(tops: Sequence[tuple[float, float]], length: float, class_: str) -> Markup:
    """Return one path of vertical strokes of `length` that start at `tops`: thousands of marks in one element."""
    return element("path", d="".join(f"M{x:.1f},{y:.1f}v{length:.1f}" for x, y in tops), class_=class_)


def axes(x: Scale, y: Scale, *, x_name: str, y_name: str, x_ticks: int = 5, y_ticks: int = 5) -> Markup:
    """Return grid lines, tick labels and names for a plot whose frame is spanned by the two scales.

    `y.start` is the bottom. Without `y_ticks` there is a horizontal axis only.
    """
    marks: list[Markup] = []
    for value in y.ticks(y_ticks) if y_ticks else []:
        at = y(value)
        marks += [
            line(x.start, at, x.end, at, "grid"),
            text(x.start - 8, at + 4, y.label(value, y_ticks), anchor="end"),
        ]
    for value in x.ticks(x_ticks):
        at = x(value)
        marks += [
            line(at, y.start, at, y.start + 4, "axis"),
            text(at, y.start + 18, x.label(value, x_ticks), anchor="middle"),
        ]
    marks.append(line(x.start, y.start, x.end, y.start, "axis"))
    marks.append(text((x.start + x.end) / 2, y.start + 38, x_name, "axis-name", "middle"))
    marks.append(text(0, y.end - 14, y_name, "axis-name") if y_name else Markup(""))
    return element("g", *marks)
