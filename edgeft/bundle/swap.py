"""Puts a finished folder in the place of an older one: whoever looks sees the old one or the new one, whole.

Linux exchanges two names in one step (renameat2 with RENAME_EXCHANGE). Elsewhere the old folder steps aside first; a
kill between the two renames leaves it as `.NAME.old`, which the next call removes.
"""

import ctypes
import os
import shutil
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeft.core.atomic import fsync_folder
from edgeft.core.errors import UsageError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place` that takes its place when the block ends, and vanishes when it raises.

    Raises:
        OSError: the disk is full or the parent cannot be written; what stood at `place` is untouched.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    for left in place.parent.glob(f".{place.name}.*.tmp"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        fsync_folder(temporary)
        replace_folder(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def refuse_strangers(out: Path, known: Container[str], what: str) -> None:
    """Refuse to replace a folder that holds anything but `known` names: it is removed whole.

    Args:
        out: where something is about to be written.
        known: names that an earlier run may have left there.
        what: what such a folder is, e.g. "a bundle".

    Raises:
        UsageError: `out` is a file or a link, or holds a stranger.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out}: exists and is no folder", hint="choose another --out")
    strangers = sorted(path.name for path in out.iterdir() if path.name not in known) if out.is_dir() else []
    if strangers:
        raise UsageError(
            f"{out}: holds {strangers[0]!r}, which is no part of {what}, and would be replaced whole",
            hint="choose another --out, or empty that folder",
        )


def replace_folder(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`, and remove what stood there.

    Args:
        new: a complete folder beside `place`.
        place: where it goes; may exist.

    Raises:
        OSError: the parent cannot be written.
    """
    aside = place.with_name(f".{place.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if not place.exists():
        new.rename(place)
    elif _exchange(new, place):
        new.rename(aside)
    else:
        place.rename(aside)
        new.rename(place)
    fsync_folder(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or its file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(done == 0)
