"""What the operating system says about disks, turned into errors a user can act on."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from edgeft.core.errors import DeviceError, EdgeftError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})
_NEARLY_FULL_BYTES = 1 << 20


@contextmanager
def disk_errors(folder: Path, *, purpose: str, option: str) -> Iterator[None]:
    """Turn a full or refusing disk under `folder` into a `DeviceError`; let everything else pass.

    Libraries written in other languages report a full disk as their own error types, so an unknown exception that
    leaves less than 1 MiB free is one too.

    Args:
        folder: where the guarded code writes.
        purpose: what the folder is, e.g. "the cache".
        option: the command-line option that chooses another place, e.g. "--cache".

    Raises:
        DeviceError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except EdgeftError:
        raise
    except Exception as error:
        if _is_full(error, folder):
            raise full(folder, purpose=purpose, option=option) from error
        if isinstance(error, OSError) and error.errno in _REFUSED and _concerns(error, folder):
            raise refused(folder, error, purpose=purpose, option=option) from error
        raise


def full(folder: Path, *, purpose: str, option: str) -> DeviceError:
    """Return the error for a full disk."""
    return DeviceError(
        f"the disk that holds {purpose} {folder} is full ({free_bytes(folder) / 1e6:.1f} MB left)",
        hint=f"free some space there, or choose another folder with {option} FOLDER, and run the same command again",
    )


def refused(folder: Path, error: OSError, *, purpose: str, option: str) -> DeviceError:
    """Return the error for a folder that cannot be written."""
    return DeviceError(
        f"{purpose} {folder} cannot be written: {error.strerror} ({error.filename or folder})",
        hint=f"choose a folder that you may write with {option} FOLDER",
    )


def require_writable(folder: Path, *, purpose: str, option: str) -> None:
    """Make `folder` if need be and prove that a file can be written in it.

    Raises:
        DeviceError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a name of its own: another run may prove the same folder at the same time
        with NamedTemporaryFile(dir=folder, prefix=".edgeft-probe-", buffering=0) as probe:
            probe.write(b"edgeft")
    except OSError as error:
        if error.errno in _FULL:
            raise full(folder, purpose=purpose, option=option) from error
        raise refused(folder, error, purpose=purpose, option=option) from error


def take_space(path: Path, *, purpose: str) -> None:
    """Take on disk now what the sparse file `path` will hold.

    Else it would be filled through its memory map, where a full disk kills the process with a signal.

    Args:
        path: in the cache; deleted where there is no room.
        purpose: what it holds, e.g. "pixels".

    Raises:
        DeviceError: the disk has no room.
    """
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DeviceError(
            f"{path.parent}: no room for {size} bytes of {purpose} ({error.strerror})",
            hint="free disk space or set --cache to a larger disk",
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the bytes free for this user on the disk that holds `folder`, or would hold it."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return free_bytes(folder) < _NEARLY_FULL_BYTES


def _concerns(error: OSError, folder: Path) -> bool:
    named = [Path(str(name)) for name in (error.filename, error.filename2) if name]
    return any(path == folder or folder in path.parents for path in named)
