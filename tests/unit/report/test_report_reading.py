import math
from typing import Any

import pytest

from edgeft.report.reading import View, candidate, chosen, finite, latency_arms


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), (True, None), ("1", None), (None, None), (math.nan, None), (math.inf, None), ([1], None)],
)
def test_only_finite_numbers_are_numbers(value: object, expected: float | None) -> None:
    assert finite(value) == expected


def test_a_missing_or_wrong_part_reads_as_empty() -> None:
    view = View({"a": {"b": 3}, "list": [1, "x", None, 2], "pair": [1, 2], "half": [1, None], "text": None, "bad": "x"})
    assert view.at("a").number("b") == 3
    assert not view.at("a", "b", "c")
    assert not view.at("missing")
    assert view.numbers("list") == [1, 2]
    assert view.names("list") == ["1", "x", "None", "2"]
    assert view.pair("pair") == (1, 2)
    assert view.pair("half") is None
    assert view.pair("list") is None
    assert view.text("text") == ""
    assert view.text("a") == ""
    assert view.views("pair") == []
    assert view.items("bad") == []
    assert view.flag("bad") is None


def test_rows_keep_their_shape_only_where_all_cells_are_numbers() -> None:
    assert View({"m": [[1, 2], [3, "x"], "y"]}).rows("m") == [[1, 2], [3]]


def test_the_chosen_candidate_is_named_by_the_choice_then_by_the_metrics(complete: dict[str, Any]) -> None:
    assert chosen(View(complete)) == "int8"
    del complete["choice"]
    assert chosen(View(complete)) == "int8"
    del complete["verify"]
    assert chosen(View(complete)) == ""


def test_a_candidate_is_found_by_name(complete: dict[str, Any]) -> None:
    assert candidate(View(complete), "int8").number("size_bytes") == 3_672_118
    assert not candidate(View(complete), "fp16")


def test_latency_arms_are_named_after_candidates_fp32_first(complete: dict[str, Any]) -> None:
    assert [name for name, _ in latency_arms(View(complete))] == ["fp32", "int8"]
    complete["latency"] = None
    assert latency_arms(View(complete)) == []
