"""Lines over two axes: ROC, precision-recall, training history."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.markup import Markup, element
from edgeft.report.svg import Scale, axes, dot, drawing, line, path

_LEFT, _TOP, _BOTTOM, _RIGHT = 52.0, 30.0, 46.0, 14.0
UNIT = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: points in data units, the colour class, and the point where decisions are taken, if there is one."""

    points: Sequence[tuple[float, float]]
    class_: str
    decision: tuple[float, float] | None = None
    markers: bool = False


@dataclass(frozen=True, slots=True)
class Plane:
    """The axes of a plot: names and data ranges."""

    x_name: str
    y_name: str
    x_range: tuple[float, float] = UNIT
    y_range: tuple[float, float] = UNIT
    diagonal: bool = False
    x_ticks: int = 5


def plot(
    curves: Sequence[Curve], plane: Plane, *, title: str, description: str, size: tuple[float, float] = (340, 330)
) -> Markup:
    """Return `curves` over the axes of `plane`; `size` is (width, height) in units."""
    width, height = size
    x = Scale(*plane.x_range, _LEFT, width - _RIGHT)
    y = Scale(*plane.y_range, height - _BOTTOM, _TOP)
    marks = [mark for curve in curves for mark in _marks(curve, x, y)]
    return drawing(
        width,
        height,
        axes(x, y, x_name=plane.x_name, y_name=plane.y_name, x_ticks=plane.x_ticks),
        line(x.start, y.start, x.end, y.end, "chance") if plane.diagonal else None,
        element("g", *marks),
        title=title,
        description=description,
    )


def _marks(curve: Curve, x: Scale, y: Scale) -> list[Markup]:
    at = [(x(horizontal), y(vertical)) for horizontal, vertical in curve.points]
    marks = [path(at, f"curve {curve.class_}")] if len(at) > 1 else []
    if curve.markers or len(at) == 1:
        marks += [dot(*point, 3.5, f"point {curve.class_}") for point in at]
    if curve.decision:
        marks.append(dot(x(curve.decision[0]), y(curve.decision[1]), 5.5, f"decision {curve.class_}"))
    return marks


def y_range_of(
    values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None
) -> tuple[float, float]:
    """Return a range that holds `values` with some air, not past `floor` and `ceiling`.

    Raises:
        ValueError: `values` is empty.
    """
    low, high = min(values), max(values)
    air = 0.1 * (high - low) or max(abs(high), 1.0) * 0.1
    bottom = low - air if floor is None else max(floor, low - air)
    top = high + air if ceiling is None else min(ceiling, high + air)
    return (bottom, top) if top > bottom else (bottom, bottom + air)
