"""Places, a line and workers: the bounded queue, and the threads that decode and infer outside of the event loop.

A place is taken when a request comes, before its body is read, and is free again when a worker has finished or dropped
the work. So the places bound what is held in memory: at most `places` bodies. Images that stand in line together are
run as one batch where `max_batch` allows it; each is decoded, refused and decided by itself all the same.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgeft.core.errors import DataError
from edgeft.runtime.encode import Encoder, Feeds, Source
from edgeft.runtime.predictor import Prediction
from edgeft.serve.options import Options
from edgeft.serve.refusals import Refusal


class Decider(Protocol):
    """What a desk needs of a `Predictor`."""

    encode: Encoder

    def decide_together(self, arrays: Feeds) -> list[Prediction]:
        """Decide a batch."""
        ...


class Places:
    """A counter that is never above `total`; threads may share it."""

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take `count` places, all or none; return whether there were as many."""
        with self._lock:
            fits = self.taken + count <= self.total
            self.taken += count if fits else 0
            return fits

    def give_back(self, count: int) -> None:
        """Free `count` places."""
        with self._lock:
            self.taken -= count


@dataclass(frozen=True, slots=True)
class Job:
    """An image or a text in line, called `name` in messages; it holds a place until a worker is done with it.

    Cancelling `answer` takes it out.
    """

    source: Source
    name: str
    answer: Future[Prediction] = field(default_factory=Future)


class Desk:
    """The line and its workers, which run until `close`.

    Args:
        decider: decides.
        options: how many workers, places and images at once.
        on_batch: told the size of each batch.
    """

    def __init__(self, decider: Decider, options: Options, on_batch: Callable[[int], None]) -> None:
        self.places = Places(options.places)
        self._decider, self._options, self._on_batch = decider, options, on_batch
        self._line: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"serve {i}") for i in range(options.workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return self._line.qsize()

    def submit(self, source: Source, name: str) -> Future[Prediction]:
        """Put `source` in line, on a place that was taken for it; `name` is what messages call it."""
        job = Job(source, name)
        self._line.put(job)
        return job.answer

    def close(self) -> None:
        """End the workers when the line is done."""
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._line.get()) is not None:
            self._answer(self._together_with(job))

    def _together_with(self, first: Job) -> list[Job]:
        batch, until = [first], time.monotonic() + self._options.max_wait_ms / 1000
        while len(batch) < self._options.max_batch:
            try:
                job = self._line.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._line.put(None)
                break
            batch.append(job)
        return batch

    def _answer(self, batch: Sequence[Job]) -> None:
        running = []
        for job in batch:
            if not job.answer.set_running_or_notify_cancel():
                self.places.give_back(1)  # nobody waits for it any more
                continue
            try:
                running.append((job, self._decider.encode(job.source, job.name)))
            except DataError as error:
                self._refuse(job, Refusal(400, error.message, error.hint))
            except Exception as error:  # noqa: BLE001 - whoever waits for the answer handles it
                self._refuse(job, error)
        if not running:
            return
        self._on_batch(len(running))
        try:
            rows = [feeds for _, feeds in running]
            arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            found = self._decider.decide_together(arrays)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer handles it
            for job, _ in running:
                self._refuse(job, error)
            return
        for (job, _), one in zip(running, found, strict=True):
            self.places.give_back(1)  # before the answer, so that who has it finds the place free
            job.answer.set_result(one)

    def _refuse(self, job: Job, error: Exception) -> None:
        self.places.give_back(1)
        job.answer.set_exception(error)
