"""How a bundle is served: every limit in one value."""

from dataclasses import dataclass
from typing import Final

IMAGE_BYTES: Final = 10 << 20
"""Largest body with an image, where nothing else is asked for."""
TEXT_BYTES: Final = 1 << 20
"""Largest body with texts, likewise: the tokenizer reads a text whole before it is cut."""


@dataclass(frozen=True, slots=True)
class Options:
    """Limits of a server.

    Args:
        workers: threads that decode and infer, each one request or batch at a time.
        threads: intra-op threads of the model; the workers share one session.
        queue: images or texts that may wait beside those in work.
        max_bytes: largest body of a request; None for `IMAGE_BYTES` or `TEXT_BYTES`.
        max_batch: images that wait together and are run as one batch, at most.
        max_wait_ms: how long a batch waits for more.
        timeout_ms: from a request's head to its answer, at most.
        grace_s: how long a stopping server goes on answering what it has taken in.
    """

    workers: int = 1
    threads: int = 1
    queue: int = 32
    max_bytes: int | None = None
    max_batch: int = 1
    max_wait_ms: float = 2.0
    timeout_ms: int = 10_000
    grace_s: float = 10.0

    def most_bytes(self, *, texts: bool) -> int:
        """Return the largest body of a bundle that decides texts, or images."""
        return self.max_bytes if self.max_bytes is not None else TEXT_BYTES if texts else IMAGE_BYTES

    @property
    def places(self) -> int:
        """Images or texts that are in the server at once, their bodies being read, waiting, or in work: at most."""
        return self.queue + self.workers * self.max_batch
