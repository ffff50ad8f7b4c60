"""What edgeft's own package metadata asks for, by extra, against what is installed."""

import re
from dataclasses import asdict, dataclass
from importlib import metadata

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<bounds>[^;]*)(?:;.*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"].*)?"
)
_BOUND = re.compile(r"(>=|==)\s*([^,\s]+)")
BASE = "base"


@dataclass(frozen=True, slots=True)
class Package:
    """One required distribution.

    Args:
        name: the distribution.
        extra: the extra that asks for it, or "base".
        wanted: its version bounds, e.g. ">=2.9".
        installed: the version found, or None.
        fits: whether that version is within the bounds.
    """

    name: str
    extra: str
    wanted: str
    installed: str | None
    fits: bool

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def required() -> tuple[Package, ...]:
    """Return every distribution that edgeft asks for; empty where edgeft runs without being installed."""
    try:
        listed = metadata.requires("edgeft") or []
    except metadata.PackageNotFoundError:
        return ()
    return tuple(_package(match) for line in listed if (match := _REQUIREMENT.fullmatch(line.strip())))


def pip_command(extra: str) -> str:
    """Return the command that installs what `extra` asks for."""
    return "pip install edgeft" if extra == BASE else f"pip install 'edgeft[{extra}]'"


def within(version: str, bounds: str) -> bool:
    """Return whether `version` satisfies every >= and == in `bounds` (edgeft's metadata uses no others)."""
    found = _numbers(version)
    for sign, limit in _BOUND.findall(bounds):
        wanted = _numbers(limit)
        if (sign == ">=" and found < wanted) or (sign == "==" and found[: len(wanted)] != wanted):
            return False
    return True


def _package(match: re.Match[str]) -> Package:
    name, wanted = match["name"], match["bounds"].strip()
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = None
    fits = installed is not None and within(installed, wanted)
    return Package(name, match["extra"] or BASE, wanted, installed, fits)


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
