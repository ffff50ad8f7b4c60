"""Whatever a record holds, a page, a card, a suite and a summary come out: a broken part never hides the verdict."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeft.report.card import model_card
from edgeft.report.html import render
from edgeft.report.junit import junit
from edgeft.report.summary import markdown_summary, text_summary

COMPLETE = json.loads((Path(__file__).parent / "records" / "complete.json").read_text(encoding="utf-8"))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**12),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.floats(), max_size=3),
    st.just([[1, 2], [3]]),
)


def _paths(value: object, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path to every value; of long lists the first two items stand for all."""
    if here:
        yield here
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*here, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:2]):
            yield from _paths(item, (*here, index))


PATHS = list(_paths(COMPLETE))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=4))
def test_any_part_may_be_anything(changes: list[tuple[tuple[Any, ...], object]]) -> None:
    record = copy.deepcopy(COMPLETE)
    for (*parents, last), odd in changes:
        here = record
        try:
            for key in parents:
                here = here[key]
            here[last] = odd
        except (KeyError, IndexError, TypeError):  # an earlier change removed this place
            continue
    for text in (render(record, Path("/nowhere")), model_card(record), junit(record)):
        text.encode()
    markdown_summary(record)
    text_summary(record)
