"""One builder at a time: an advisory lock on a file, released by the kernel however its holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeft.core.events import EventSink, Message


@contextmanager
def exclusive(path: Path, *, work: str, emit: EventSink) -> Iterator[None]:
    """Hold the lock at `path`; while another process holds it, say so once and wait.

    Args:
        path: the lock file; made if missing, never removed (removing one that somebody waits on would split it).
        work: what the lock guards, for the message: "finetune".
        emit: where the message goes.
    """
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            emit(Message(f"another edgeft (process {holder}) is busy with {work} here; waiting for it"))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Try to hold the lock at `path`; yields whether it was free."""
    with path.open("a+b") as file:
        yield _try_lock(file.fileno())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
