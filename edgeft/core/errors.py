"""What can go wrong, and the exit code that says so.

    EdgeftError                1   internal
    ├── UsageError             2   command line or recipe
    ├── DataError              3   the user's data
    ├── DeviceError            4   environment, device, disk, a missing extra
    └── IntegrityError         8   a digest or signature does not match

Gates are not exceptions: they are verdicts in the run record (exit codes 5, 6 and 7).
"""

from typing import ClassVar


class EdgeftError(Exception):
    """An error a user can act on.

    Args:
        message: what was found and what was expected; names the file, row or key.
        hint: the command or edit that mends it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgeftError):
    """The command line or the recipe is wrong."""

    exit_code: ClassVar[int] = 2


class DataError(EdgeftError):
    """The user's data cannot be used as it is."""

    exit_code: ClassVar[int] = 3


class DeviceError(EdgeftError):
    """The environment or device lacks something: an extra, space, a permission."""

    exit_code: ClassVar[int] = 4


class IntegrityError(EdgeftError):
    """Bytes are not what their digest or signature says."""

    exit_code: ClassVar[int] = 8


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's error says, or its type where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else repr(error)
