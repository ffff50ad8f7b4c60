"""What a range test's curve says, on curves whose turn is known."""

import math

import pytest

from edgeft.core.errors import UsageError
from edgeft.finetune.schedules import schedule
from edgeft.pipeline.lr_find import judge, smoothed

STEPS = 120
RATES = [10 ** (-6 + 6 * i / (STEPS - 1)) for i in range(STEPS)]


def curve(turn: float) -> list[float]:
    """Flat, then falling by 1 over two decades up to `turn`, then rising."""
    found = []
    for rate in RATES:
        place = math.log10(rate / turn)
        found.append(1.5 - max(0.0, min(1.0, (place + 2) / 2)) + max(0.0, place) * 4)
    return found


@pytest.mark.parametrize("turn", [1e-3, 1e-2])
def test_the_suggestion_is_a_tenth_of_the_turn(turn: float) -> None:
    found = judge(RATES, curve(turn), exploded=True)
    late = 10 ** (6 / STEPS * 12)  # the average looks back over some ten steps
    assert turn <= found.lowest <= turn * late
    assert found.suggestion == pytest.approx(found.lowest / 10)
    assert turn / 100 < found.steepest < found.lowest


def test_the_average_starts_at_the_first_loss() -> None:
    assert smoothed([2.0]) == pytest.approx([2.0])
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smoothed([1.0, 0.0])[1] == pytest.approx((0.9 * 0.1) / (1 - 0.81))


def test_a_loss_that_only_rises_is_no_answer() -> None:
    with pytest.raises(UsageError, match="fell at no rate"):
        judge(RATES, [1 + i for i in range(STEPS)], exploded=True)
    with pytest.raises(UsageError, match="5 steps say nothing: 13 are needed"):
        judge(RATES[:5], [1.0] * 5, exploded=False)


def test_rates_rise_by_the_same_factor() -> None:
    rising = schedule("range", 0.0, 1.0, 1e-7)
    found = [rising(t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([1e-7, 10**-5.25, 10**-3.5, 10**-1.75, 1.0])
