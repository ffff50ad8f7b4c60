"""Numbers, durations and sizes as people read them; tables whose cells are never read as markup."""

import pytest

from edgeft.cli.tables import number, seconds, size, table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.761, "0.761"), (1.5238, "1.524"), (12.345, "12.35"), (256, "256"), (2.0, "2"), (-0.3, "-0.3"), (1e-7, "1e-07")],
)
def test_number_keeps_four_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_shows_what_is_no_number_as_a_dash(value: float) -> None:
    assert number(value) == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 B"), (1500, "1.5 kB"), (5_203_111, "5.2 MB"), (2.5e9, "2.5 GB")]
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


def test_a_table_shows_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = table(("name", "n"), [("input [N, 3]", "7"), ("[red]x[/red] :smile:", "12345")], right=("n",)).splitlines()
    assert lines[0].split() == ["name", "n"]
    assert lines[2] == "input [N, 3]               7"
    assert lines[3] == "[red]x[/red] :smile:   12345"


def test_a_wide_cell_wraps_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = table(("a", "b"), [("short", "x" * 90)])
    assert text.count("x") == 90
    assert max(map(len, text.splitlines())) <= 40
