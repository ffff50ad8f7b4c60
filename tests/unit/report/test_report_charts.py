import random

import numpy as np
import pytest

from edgeft.report.charts.curves import Curve, Plane, plot, y_range_of
from edgeft.report.charts.interval import Judged, interval_line
from edgeft.report.charts.samples import Arm, quantile, samples_chart
from edgeft.report.charts.scatter import Point, scatter
from edgeft.report.svg import Scale, padded


def test_a_scale_maps_its_ends_to_its_ends() -> None:
    scale = Scale(10, 20, 100, 300)
    assert [scale(10), scale(15), scale(20)] == [100, 200, 300]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 14.4, ["0", "5", "10"]),
        (85.2, 91, ["86", "88", "90"]),
        (-0.03, 0.07, ["-0.02", "0.00", "0.02", "0.04", "0.06"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[str]) -> None:
    scale = Scale(low, high, 0, 100)
    assert [scale.label(value) for value in scale.ticks()] == expected


def test_equal_values_get_a_width() -> None:
    scale = padded([3.0, 3.0], 0, 100)
    assert scale.low < 3 < scale.high
    assert padded([0.0], 0, 100)(0.0) == 50


@pytest.mark.parametrize("q", [0.0, 0.05, 0.25, 0.5, 0.95, 1.0])
def test_quantile_agrees_with_numpy(q: float) -> None:
    values = [random.Random(3).gauss(10, 2) for _ in range(57)]  # noqa: S311 - drawn numbers
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-12)


def test_a_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def _line(judged: Judged) -> str:
    return interval_line(judged, tone="pass", labels=("none", "limit"), title="t", description="d")


def test_the_allowed_side_is_shaded_only_where_it_is_known() -> None:
    assert 'class="allowed"' in _line(Judged(0.3, (0.1, 0.5), 2.0, 0.0, allowed_below=True))
    assert 'class="allowed"' not in _line(Judged(0.3, (0.1, 0.5), 2.0, 0.0))


def test_an_exact_value_has_no_whisker_and_no_noise_band() -> None:
    drawn = _line(Judged(0.0, None, 0.0))
    assert "whisker" not in drawn
    assert "noise" not in drawn
    assert 'class="noise"' in _line(Judged(0.65, (0.64, 0.66), 1.0, 1.0, noise=0.01))


def test_every_sample_is_a_stroke() -> None:
    arm = Arm("int8", "s-chosen", 2.0, [[1.0, 2.0, 3.0], [2.0, 2.5]])
    drawn = samples_chart([arm], title="t", description="d")
    assert drawn.count("M") == 5
    assert drawn.count("centre") == 2
    assert "more, up to" not in drawn


def test_samples_too_far_right_are_counted_at_the_edge() -> None:
    arm = Arm("int8", "s-chosen", 2.0, [[2.0] * 40 + [900.0, 1000.0]])
    drawn = samples_chart([arm], title="t", description="d")
    assert drawn.count("M") == 40
    assert "2 more, up to 1000 ms" in drawn


def test_a_scatter_draws_each_candidate_with_its_intervals() -> None:
    points = [
        Point("fp32", "s-fp32", 13.0, (12.9, 13.4), 88.4, (85.0, 91.0)),
        Point("int8", "s-chosen", 8.6, (8.5, 8.7), 88.2, None),
    ]
    drawn = scatter(points, metric="accuracy", margin=86.4, title="t", description="d")
    assert drawn.count("<circle") == 2
    assert drawn.count('class="whisker') == 3
    assert "fp32 less the margin" in drawn
    assert "less the margin" not in scatter(points, metric="accuracy", margin=None, title="t", description="d")


def test_a_curve_of_one_point_is_a_dot() -> None:
    drawn = plot([Curve([(1.0, 0.5)], "s-chosen")], Plane("epoch", "loss", (1, 2)), title="t", description="d")
    assert "<polyline" not in drawn
    assert drawn.count("<circle") == 1


def test_a_drawing_has_a_name_and_a_description() -> None:
    drawn = plot([], Plane("x", "y", diagonal=True), title="A <name>", description="In words")
    assert drawn.count("<title>A &lt;name&gt;</title><desc>In words</desc>") == 1
    assert 'role="img"' in drawn
    assert 'class="chance"' in drawn


def test_a_range_of_equal_values_has_a_width() -> None:
    low, high = y_range_of([0.0, 0.0], floor=0.0)
    assert low == 0.0
    assert high > low
