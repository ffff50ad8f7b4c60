"""How long requests may take: each has its own deadline, and a server that stops can bring all of them forward."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadlines:
    """The deadlines of the requests that are open.

    Args:
        seconds: of each, from where it begins.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Run a request's work.

        Raises:
            TimeoutError: it took too long, or the server stopped.
        """
        async with asyncio.timeout(self._seconds) as timeout:
            self._open.add(timeout)
            try:
                yield
            finally:
                self._open.discard(timeout)

    def cut(self, seconds: float) -> None:
        """Let no open request go on for more than `seconds` from now."""
        latest = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            until = timeout.when()
            if until is not None and until > latest and not timeout.expired():
                timeout.reschedule(latest)
