import itertools

import numpy as np
import pytest

from edgeft.quantize.pair_rule import partner_bound, repair, repair_, suspects_of, unsafe_pairs


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([64, 64], 0),
        ([65, 64], 1),
        ([127, 2], 1),
        ([127, 1], 0),
        ([127, -127], 0),
        ([-127, -2], 1),
        ([0, 127, 127, 0], 0),  # (1, 2) are no pair
        ([1, 100, 29], 0),  # an odd last column stands alone
        ([100, 29, 100, 29], 2),
    ],
)
def test_counts_pairs_whose_products_can_pass_int16(row: list[int], expected: int) -> None:
    assert unsafe_pairs(np.array([row], np.int8)) == expected


def test_the_limit_is_what_int16_holds() -> None:
    assert 255 * 128 <= 32767 < 255 * 129


def test_minus_128_does_not_wrap_around() -> None:
    assert unsafe_pairs(np.array([[-128, -1]], np.int8)) == 1


def test_repair_changes_only_unsafe_pairs() -> None:
    target = np.array([[100.4, 20.2, 100.4, 90.2, -3.0]])
    rounded = np.rint(target)
    repaired = repair(rounded, target, np.ones(5))
    assert repaired[0, :2].tolist() == [100, 20]
    assert repaired[0, 4] == -3
    assert unsafe_pairs(repaired) == 0


def test_repair_is_the_cheapest_of_all_safe_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        target = rng.uniform(60, 127, 2) * rng.choice([-1, 1])
        importance = rng.uniform(0.1, 10, 2)
        rounded = np.rint(target)[None]
        found = repair(rounded, target[None], importance[None])[0]
        sign = np.sign(target[0])
        cost = min(
            (importance * (np.array(pair) * sign - target) ** 2).sum()
            for pair in itertools.product(range(128), repeat=2)
            if sum(pair) <= 128
        )
        assert (importance * (found - target) ** 2).sum() == pytest.approx(cost)


def test_repair_survives_inputs_that_cost_nothing() -> None:
    repaired = repair(np.array([[127.0, 127.0]]), np.array([[127.0, 127.0]]), np.zeros(2))
    assert unsafe_pairs(repaired) == 0


def test_partner_bounds() -> None:
    integers = np.array([[100.0, 0.0], [-30.0, 0.0], [127.0, 0.0], [0.0, 0.0]])
    low, high = partner_bound(integers, 1)
    assert low.tolist() == [-127, -98, -127, -127]
    assert high.tolist() == [28, 127, 1, 127]
    low, high = partner_bound(integers, 0)
    assert (low == -127).all()
    assert (high == 127).all()


@pytest.mark.parametrize("columns", [6, 7])
def test_suspects_are_all_that_can_be_unsafe_at_any_scale(columns: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.uniform(-1, 1, (2, 50, columns))
    shares[:, :, 2] = 1.0
    importance = rng.uniform(0.1, 10, (2, 1, columns))
    suspects = suspects_of(shares, importance)
    for qmax in range(64, 128):
        target = shares * qmax
        integers = np.rint(target)
        expected = repair(integers, target, importance)
        repair_(integers, target, suspects)
        np.testing.assert_array_equal(integers, expected)
        assert unsafe_pairs(integers) == 0
    assert 0 < len(suspects.first) < 2 * 50 * 3


def test_integers_that_cannot_be_repaired_in_place_are_an_error() -> None:
    shares = np.ones((4, 6)).T
    with pytest.raises(ValueError, match="contiguous"):
        repair_(shares * 127, shares * 127, suspects_of(shares, np.ones(4)))
