"""Devices by name: a YAML file with an address, a note and the facts that were found for each.

A device is listed so:

    board:
      address: ssh://pi@192.168.1.7
      note: line 3
      seen: 2026-11-28T08:34:02Z
      facts: {cpu: Raspberry Pi 5 Model B Rev 1.0, isa: [asimd, asimddp], ...}

The file is the user's own: what is odd in it is refused with its line.
"""

import difflib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from edgeft.config import Config
from edgeft.core.atomic import write_atomic
from edgeft.core.disk import disk_errors
from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.keys import changes
from edgeft.core.stage import Json
from edgeft.pipeline.device.address import LOCAL, Device
from edgeft.recipe.check import check
from edgeft.recipe.document import MAX_BYTES, parse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile(Config):
    """One device as the file holds it."""

    address: str
    """ssh://..."""
    note: str = ""
    """What its owner wrote."""
    seen: str = ""
    """When its facts were found: UTC, ISO 8601."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What it was then, see `needs.device_facts`."""


def load(file: Path) -> dict[str, Profile]:
    """Return the devices of `file` by name; none where there is no file.

    Raises:
        UsageError: it is no YAML, holds an unknown key, a bad name or a bad address; says the line.
        DeviceError: it cannot be read.
    """
    try:
        data = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise DeviceError(f"{file}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file}: {len(data)} bytes, a list of devices has at most {MAX_BYTES}")
    text = data.decode("utf-8", "replace")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return {}
    document = parse(text, str(file))
    found: dict[str, Profile] = {}
    for name, values in document.values.items():
        where = document.origin((name,))
        if name == LOCAL or not _NAME.fullmatch(name):
            raise UsageError(f"{where}: {name!r} cannot name a device", hint="letters, digits, '.', '_' and '-'")
        found[name] = check(Profile, values, at=(name,), document=document)
        try:
            Device.parse(found[name].address)
        except UsageError as error:
            where = document.origin((name, "address"))
            raise UsageError(f"{where}: {name}.address: {found[name].address} is no address", hint=error.hint) from None
    return found


def save(file: Path, devices: Mapping[str, Profile]) -> None:
    """Write `devices` to `file`, whole or not at all.

    Raises:
        DeviceError: it cannot be written.
    """
    values = {name: profile.model_dump(mode="json") for name, profile in sorted(devices.items())}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""
    with disk_errors(file.parent, purpose="the list of devices", option="XDG_CONFIG_HOME"):
        write_atomic(file, text)


def require_name(name: str, devices: Mapping[str, Profile]) -> None:
    """Refuse `name` for a new device.

    Raises:
        UsageError: it is reserved, odd, or taken.
    """
    if name == LOCAL:
        raise UsageError(f"{LOCAL} is this machine, and is always there", hint="choose another name")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a device", hint="letters, digits, '.', '_' and '-'")
    if name in devices:
        raise UsageError(f"{name} is there already: {devices[name].address}", hint=f"edgeft devices rm {name}")


def find(name: str, devices: Mapping[str, Profile]) -> Profile:
    """Return the device called `name`.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if name in devices:
        return devices[name]
    near = difflib.get_close_matches(name, devices, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(devices)) or 'none'}"
    raise UsageError(
        f"no device is called {name!r}", hint=f"{known}; edgeft devices add {name} ssh://user@host, or give ssh://..."
    )


def address_of(text: str, devices: Mapping[str, Profile]) -> str:
    """Return local or ssh://... for what a user typed: that itself, or a device's name.

    Raises:
        UsageError: it is an odd address, or no device is called so.
    """
    if text == LOCAL:
        return text
    if _NAME.fullmatch(text):
        return find(text, devices).address
    return Device.parse(text).text


def now() -> str:
    """Return this moment: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def changed(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return every fact that differs: its name, what it was and what it is."""
    return [
        {"fact": ".".join(change.path), "was": change.old, "is": change.new} for change in changes(dict(old), dict(new))
    ]
