"""Work on a stream of items with a few threads, in order, without running far ahead of whoever takes the results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_ahead(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order; at most `threads` + 1 results are waiting or in work at a time.

    Args:
        work: must let go of the interpreter's lock for its long parts, or threads gain nothing.
        items: taken as they are needed.
        threads: how many run; with 1 everything runs in the caller's thread when it is asked for.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as workers:
        running: deque[Future[Result]] = deque()
        try:
            for item in items:
                running.append(workers.submit(work, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
