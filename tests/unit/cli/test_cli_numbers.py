"""Options that hold a share, as people write one."""

import pytest

from edgeft.cli.numbers import share
from edgeft.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5%", 0.05),
        (" 5 % ", 0.05),
        ("0.05", 0.05),
        ("2.5%", 0.025),
        ("0", 0.0),
        ("0%", 0.0),
        ("0.99", 0.99),
        ("150%", 1.5),
    ],
)
def test_a_share_is_written_in_percent_or_as_a_fraction(text: str, expected: float) -> None:
    assert share("--max-slowdown", text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("5", "500%", "write --max-slowdown 5% for 5 percent"),
        ("1", "100%", "write --max-slowdown 1% for 1 percent"),
        ("2.5", "250%", "write --max-slowdown 2.5% for 2.5 percent"),
    ],
)
def test_a_bare_number_from_one_up_is_taken_for_forgotten_percent(text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"--max-slowdown '{text}': that is {said}") as caught:
        share("--max-slowdown", text)
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["-5%", "-0.05"])
def test_a_share_below_zero_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--max-slowdown '{text}': must not be below 0"):
        share("--max-slowdown", text)


@pytest.mark.parametrize("text", ["", "%", "five", "5 percent", "5,5%", "1,2", "nan", "inf%", "5%%"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-slowdown"):
        share("--max-slowdown", text)
