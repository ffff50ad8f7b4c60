import pytest

from edgeft.report import numbers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.761), "76.1 %"),
        (numbers.percent(None), "not recorded"),
        (numbers.points(0.31), "0.3 pp"),
        (numbers.points(-0.04), "0.0 pp"),
        (numbers.span((0.1, 0.52), 1), "0.1 to 0.5"),
        (numbers.span((0.861, 0.925), 1, 100), "86.1 to 92.5"),
        (numbers.span(None, 1), ""),
        (numbers.count(10000), "10 000"),
        (numbers.count(525), "525"),
        (numbers.size(812), "812 B"),
        (numbers.size(4_912_345), "4.91 MB"),
        (numbers.size(13_480_210), "13.5 MB"),
        (numbers.size(2_000_000_000_000), "2000 GB"),
        (numbers.duration(0.421), "0.42 s"),
        (numbers.duration(31.4), "31 s"),
        (numbers.duration(72), "1 min 12 s"),
        (numbers.duration(7530), "2 h 5 min"),
        (numbers.milliseconds(4.2137), "4.21 ms"),
        (numbers.milliseconds(0.0421), "0.0421 ms"),
        (numbers.significant(0), "0"),
        (numbers.significant(0.0000012), "1.20e-06"),
        (numbers.general(0.001), "0.001"),
        (numbers.general(1.2e-05), "1.2e-05"),
    ],
)
def test_numbers_are_written_with_their_unit(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.996, "pp", "2.00 pp"),
        (0.6522, "ratio", "0.652"),
        (25.0, "ms", "25.00 ms"),
        (0.97714, "agreement", "97.71 %"),
        (3_672_118, "bytes", "3.67 MB"),
        (0.0, "flips", "0 flips"),
        (0.001, "logit", "0.001 logit"),
        (None, "pp", "not recorded"),
        (3.0, "", "3"),
    ],
)
def test_a_gate_value_is_written_in_its_unit(value: float | None, unit: str, expected: str) -> None:
    assert numbers.quantity(value, unit) == expected


@pytest.mark.parametrize(
    ("interval", "unit", "expected"),
    [
        ((0.1, 0.52), "pp", "0.10 to 0.52"),
        ((0.641, 0.664), "ratio", "0.641 to 0.664"),
        ((0.97, 0.995), "agreement", "97.00 to 99.50 %"),
        ((1, 2.5), "widgets", "1 to 2.5"),
        (None, "pp", ""),
    ],
)
def test_a_gate_interval_is_written_in_its_unit(interval: tuple[float, float] | None, unit: str, expected: str) -> None:
    assert numbers.quantity_span(interval, unit) == expected
