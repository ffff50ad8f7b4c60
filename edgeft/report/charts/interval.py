"""A value with its interval against a limit, on one line: what a gate judged, at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.markup import Markup
from edgeft.report.svg import Scale, box, dot, drawing, line, padded, text

_WIDTH, _HEIGHT, _MARGIN = 300.0, 54.0, 10.0
_MIDDLE = 20.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What a gate held against its limit; all in one unit.

    Args:
        value: the point estimate.
        interval: (low, high), or None where the value is exact.
        limit: the bound.
        reference: the value that means "no change" (0 for a drop, 1 for a ratio), or None.
        allowed_below: whether values below the limit are allowed; None where that is not known.
        noise: half-width around `reference` within which the machine differs from itself, or None.
    """

    value: float
    interval: tuple[float, float] | None
    limit: float
    reference: float | None = None
    allowed_below: bool | None = None
    noise: float | None = None

    def numbers(self) -> list[float]:
        """Return everything that must be visible."""
        noise = (
            []
            if self.noise is None or self.reference is None
            else [self.reference - self.noise, self.reference + self.noise]
        )
        reference = [] if self.reference is None else [self.reference]
        return [self.value, self.limit, *(self.interval or ()), *reference, *noise]


def interval_line(judged: Judged, *, tone: str, labels: Sequence[str], title: str, description: str) -> Markup:
    """Return the line.

    Args:
        judged: the numbers.
        tone: colour class of the verdict.
        labels: texts for the reference and the limit.
        title: names the drawing.
        description: says it in words.
    """
    scale = padded(judged.numbers(), _MARGIN, _WIDTH - _MARGIN, 0.12)
    low, high = judged.interval or (judged.value, judged.value)
    reference_label, limit_label = labels
    return drawing(
        _WIDTH,
        _HEIGHT,
        _allowed(judged, scale),
        _noise(judged, scale),
        line(_MARGIN, _MIDDLE, _WIDTH - _MARGIN, _MIDDLE, "axis"),
        _tick(judged.reference, scale, "reference", reference_label, judged.limit),
        _tick(judged.limit, scale, "limit", limit_label, None),
        line(scale(low), _MIDDLE, scale(high), _MIDDLE, f"whisker {tone}") if judged.interval else None,
        dot(scale(judged.value), _MIDDLE, 6, f"point {tone}"),
        title=title,
        description=description,
        class_="glyph",
    )


def _allowed(judged: Judged, scale: Scale) -> Markup | None:
    if judged.allowed_below is None:
        return None
    edge = scale.start if judged.allowed_below else scale.end
    return box(edge, _MIDDLE - 12, scale(judged.limit), _MIDDLE + 12, "allowed")


def _noise(judged: Judged, scale: Scale) -> Markup | None:
    if judged.noise is None or judged.reference is None:
        return None
    ends = (judged.reference - judged.noise, judged.reference + judged.noise)
    return box(scale(ends[0]), _MIDDLE - 12, scale(ends[1]), _MIDDLE + 12, "noise")


def _tick(value: float | None, scale: Scale, class_: str, label: str, other: float | None) -> list[Markup]:
    """Return the tick; its label is left out where it would stand on the other tick's label."""
    if value is None:
        return []
    at = scale(value)
    mark = line(at, _MIDDLE - 12, at, _MIDDLE + 12, class_)
    crowded = other is not None and abs(scale(other) - at) < 6.5 * len(label) + 30  # units per letter
    anchor = "start" if at < 60 else "end" if at > _WIDTH - 60 else "middle"  # noqa: PLR2004 - keeps the text inside
    return [mark] if crowded else [mark, text(at, _HEIGHT - 5, label, "label", anchor)]
