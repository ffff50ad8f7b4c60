import pytest

from edgeft.core.errors import DataError, UsageError
from edgeft.data.expression import parse

COLUMNS = ("file", "probability", "type", "count", "empty", "Defect type")
ROW = {
    "file": "images/cell0001.png",
    "probability": "0.75",
    "type": "mono",
    "count": 3,
    "empty": "",
    "Defect type": "crack",
    "index": 70,
}


def value(source: str, row: dict[str, object] | None = None) -> object:
    return parse(source, COLUMNS, "data.columns.label").value({**ROW, **(row or {})}, "row 7")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("probability", "0.75"),
        ("Defect type", "crack"),
        ("`Defect type` == 'crack'", True),
        ("probability >= 0.5 -> defective else functional", "defective"),
        ("probability < 0.5 -> defective else functional", "functional"),
        ("probability > .9 -> bad else probability > .7 -> 'not sure' else good", "not sure"),
        ("count == 3 -> 1 else 0", "1"),
        ("block(index, 32)", 2),
        ("block(index + 26, 32)", 3),
        ("before(file, '/')", "images"),
        ("after(file, 'cell')", "0001.png"),
        ("folder(file)", "images"),
        ("lower('ABC')", "abc"),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("-count * -2", 6),
        ("7 // 2 + 7 % 2", 4),
        ("1 / 4", 0.25),
        ("1e1 + .5", 10.5),
        ("not type == 'poly' and probability > 0.5", True),
        ("true or false and false", True),
        ("not true or true", True),
        ("type in ('mono', 'poly')", True),
        ("count not in (1, 2)", True),
        ("type != 'mono' or count <= 3", True),
        ("probability == 0.750", True),
    ],
)
def test_values(source: str, expected: object) -> None:
    assert value(source) == expected


def test_and_and_or_do_not_evaluate_what_they_need_not() -> None:
    assert value("false and empty == 'x'") is False
    assert value("true or empty == 'x'") is True


def test_a_text_class_keeps_its_zeros() -> None:
    assert value("type", {"type": "007"}) == "007"


@pytest.mark.parametrize(
    ("source", "message", "caret"),
    [
        ("probability >=", "expected a value, found 'end of the expression'", 14),
        ("probability = 1", "unexpected character '='", 12),
        ("(probability > 1", "expected ')', found 'end of the expression'", 16),
        ("type == 'mono", "the quote is not closed", 8),
        ("probability > 1 -> bad else", "expected a class name or a further condition", 27),
        ("probability > 1 -> ", "expected a class name", 19),
        ("1 < count < 3", "comparisons cannot be chained", 10),
        ("count 3", "unexpected '3'", 6),
        ("eval(count)", "unknown function 'eval'", 0),
        ("block(index)", "block takes 2 arguments, found 1", 0),
        ("count; 1", "unexpected character ';'", 5),
    ],
)
def test_syntax_errors_point_at_the_place(source: str, message: str, caret: int) -> None:
    with pytest.raises(UsageError) as caught:
        value(source)
    lines = caught.value.message.splitlines()
    assert message in lines[0]
    assert "data.columns.label" in lines[0]
    assert lines[2] == " " * (2 + caret) + "^"


def test_an_unknown_column_names_the_known_ones() -> None:
    with pytest.raises(DataError) as caught:
        value("probabilty >= 0.5 -> defective else functional")
    assert "unknown column 'probabilty'" in caught.value.message
    assert caught.value.message.splitlines()[2] == "  ^"
    assert caught.value.hint is not None
    assert "did you mean probability?" in caught.value.hint
    assert "file, probability, type, count, empty, Defect type, index" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("type > 1", "expected a number, found 'mono'"),
        ("empty == 1", "column 'empty' is empty"),
        ("count -> a else b", "expected true or false (a comparison), found 3"),
        ("count / 0", "division by zero"),
        ("before(file, '#')", "holds no '#'"),
        ("block(index, 0)", "block size 0: expected 1 or more"),
        ("probability > 0.9 -> bad", "no condition holds and there is no last else"),
        ("1e999 > 1", "the number is too large"),
    ],
)
def test_a_cell_that_does_not_fit_names_row_and_key(source: str, message: str) -> None:
    with pytest.raises((DataError, UsageError)) as caught:
        value(source)
    assert message in caught.value.message
    assert "data.columns.label" in caught.value.message


def test_nothing_of_python_is_reachable() -> None:
    for source in ("__import__('os')", "file.__class__", "[1]", "lambda: 1", "count if count else 1"):
        with pytest.raises((UsageError, DataError)):
            value(source)


@pytest.mark.parametrize("source", ["(" * 99 + "1" + ")" * 99, "1" + "+1" * 150, "a" * 3000, "-" * 198 + "1 "])
def test_size_is_bounded(source: str) -> None:
    try:
        value(source)
    except (UsageError, DataError) as error:
        assert error.message  # noqa: PT017 - either outcome is right; a RecursionError is not
