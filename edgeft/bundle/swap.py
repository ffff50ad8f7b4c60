"""Puts a finished folder in the place of an older one: whoever looks sees the old one or the new one, whole.

Linux exchanges two names in one step (renameat2 with RENAME_EXCHANGE). Elsewhere the old folder steps aside first; a
kill between the two renames leaves it as `.NAME.old`, which the next call removes.
"""

import ctypes
import os
import shutil
import sys
from pathlib import Path

from edgeft.core.atomic import fsync_folder

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


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
