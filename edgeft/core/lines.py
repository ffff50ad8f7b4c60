"""What one edgeft process tells another, one JSON object a line: events while it works, then an answer or an error."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from edgeft.core.errors import DataError, DeviceError, EdgeftError, IntegrityError, UsageError
from edgeft.core.events import Event, Message, Progress, Step

_EVENTS: Final[Mapping[str, type[Progress | Message | Step]]] = {
    "progress": Progress,
    "message": Message,
    "step": Step,
}
_ERRORS: Final = {kind.exit_code: kind for kind in (UsageError, DataError, DeviceError, IntegrityError)}


def object_of(line: bytes) -> dict[str, Any]:
    """Return the object of a line; of one that a library or a shell printed, an empty one."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def event_line(event: Event) -> dict[str, Any] | None:
    """Return what tells `event`, or None where it stays here."""
    name = next((name for name, kind in _EVENTS.items() if isinstance(event, kind)), None)
    return None if name is None else {name: asdict(event)}


def event_of(told: Mapping[str, Any]) -> Event | None:
    """Return the event that `told` tells, or None where it is something else."""
    found = next((name for name in _EVENTS if name in told), None)
    return None if found is None else _EVENTS[found](**told[found])


def error_line(error: EdgeftError) -> dict[str, Any]:
    """Return what tells `error`."""
    return {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}


def error_of(
    told: Mapping[str, Any], where: str | None = None, *, other: type[EdgeftError] = EdgeftError
) -> EdgeftError | None:
    """Return the error that `told` tells, of the type it had, or None where it is something else.

    Args:
        told: one line.
        where: in front of the message.
        other: the type of an error without one.
    """
    if "error" not in told:
        return None
    kind = _ERRORS.get(int(told.get("exit_code", 1)), other)
    return kind(f"{where}: {told['error']}" if where else str(told["error"]), hint=told.get("hint"))
