from collections.abc import Iterator

import pytest

from edgeft.core.ahead import run_ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(threads: int) -> None:
    assert list(run_ahead(lambda x: x * x, range(20), threads)) == [x * x for x in range(20)]


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (3, 4)])
def test_no_more_items_are_taken_than_threads_and_one(threads: int, most: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    results = run_ahead(abs, items(), threads)
    assert next(results) == 0
    assert len(taken) == most


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_whoever_asks_for_the_result(threads: int) -> None:
    results = run_ahead(lambda x: 1 // x, [1, 0, 1], threads)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
