"""Where models are timed: this machine, or one that is reached from it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Place(Protocol):
    """A machine that times models."""

    def launching(self, requests: Sequence[Any]) -> AbstractContextManager[Callable[[Any], Any]]:
        """Give what times one of `requests` at a call, in a fresh process of that machine.

        Args:
            requests: every `edgeft.runtime.worker.Request` that will be timed; what they read goes there first. Of
                each call its samples, threads and period may differ from these.

        Returns:
            A function from a Request to its Timing, good while the block is open.
        """
