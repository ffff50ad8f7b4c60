"""The device's working bundle: switched in one step, the last few kept, and one step back.

    ROOT/NAME/versions/000007-3fa9c1d2e4b5a697/    a bundle each, in the order in which they were activated
    ROOT/NAME/current -> versions/000007-...       what the device runs

All state is in those names. A version is copied, flushed and checked before `current` points to it, and `current` is
replaced by a rename, so whoever looks, at any moment and after any power cut, sees one bundle that works. Numbers above
the current one are what a rollback left behind, or what a kill left unfinished: nobody returns to them.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, cast

from edgeft.bundle.check import CheckResult, check
from edgeft.core.atomic import fsync_folder, write_atomic
from edgeft.core.disk import disk_errors, require_writable
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.core.locks import exclusive
from edgeft.core.stage import Json
from edgeft.runtime.manifest import read_files

CURRENT: Final = "current"
KEPT: Final = 3
"""Versions kept beside the current one, unless told otherwise."""
_VERSIONS, _INCOMING, _OUTGOING, _LOCK, _LINK = "versions", "incoming", "outgoing", "lock", "next"
_DIGEST_LETTERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"\d{6,}-[0-9a-f]+")
_PURPOSE, _OPTION = "the device's folder of bundles", "--root"


@dataclass(frozen=True, slots=True)
class Switch:
    """What a switch did.

    Args:
        name: the bundle's.
        current: the folder to load from; it never changes its name.
        version: what it points to now.
        before: what it pointed to; None where nothing was active.
        changed: whether it points elsewhere than before.
        kept: versions that a rollback can still reach, the nearest first.
        check: of the version that is active now.
    """

    name: str
    current: str
    version: str
    before: str | None
    changed: bool
    kept: tuple[str, ...]
    check: CheckResult

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return cast("dict[str, Json]", {**asdict(self), "kept": list(self.kept), "check": self.check.to_json()})


def activate(
    bundle: Path,
    root: Path,
    *,
    keep: int = KEPT,
    public_key: Path | None = None,
    threads: int = 1,
    emit: EventSink = ignore,
) -> Switch:
    """Copy `bundle` to the device's folder, check the copy here, and make it the current version.

    Args:
        bundle: a bundle folder, on any disk.
        root: the device's folder of bundles.
        keep: how many versions stay beside the current one, at least 1.
        public_key: whose signature it must carry; None asks for none.
        threads: intra-op threads of the replay.
        emit: told while another process switches.

    Raises:
        IntegrityError: the copy is damaged, decides otherwise here, or is not signed as asked; the old version stays.
        DeviceError: the bundle cannot be read, or the disk is full or cannot be written; the old version stays.
    """
    name = _name(bundle, public_key)
    with _held(root / name, emit) as place:
        before = _pointed(place)
        incoming = place / _INCOMING
        _copy(bundle, incoming)
        found = check(incoming, threads=threads, public_key=public_key)
        if found.name != name:
            raise IntegrityError(f"{bundle}: it became {found.name!r} while {name!r} was copied", hint="run it again")
        found = replace(found, bundle=str(place / CURRENT))
        if before is not None and _same(incoming, place / _VERSIONS / before):
            return _done(place, name, before, before, found)
        for left in _above(place, before) if before is not None else []:  # a lost link says nothing of the versions
            _discard(place, left)
        version = f"{max(map(_number, _versions(place)), default=0) + 1:06d}-{found.content_digest[:_DIGEST_LETTERS]}"
        incoming.rename(place / _VERSIONS / version)
        fsync_folder(place / _VERSIONS)
        _point(place, version)
        for old in _below(place, version)[keep:]:
            _discard(place, old)
        return _done(place, name, version, before, found)


def rollback(
    name: str, root: Path, *, public_key: Path | None = None, threads: int = 1, emit: EventSink = ignore
) -> Switch:
    """Make the version before the current one the current one, once it is checked.

    Args:
        name: the bundle's.
        root: the device's folder of bundles.
        public_key: whose signature the earlier version must carry; None asks for none.
        threads: intra-op threads of the replay.
        emit: told while another process switches.

    Raises:
        UsageError: nothing of that name is active, or there is no earlier version.
        IntegrityError: the earlier version is damaged, or not signed as asked; the current one stays.
    """
    if not _NAME.fullmatch(name) or not (root / name / CURRENT).is_symlink():
        known = sorted(path.parent.name for path in root.glob(f"*/{CURRENT}"))
        raise UsageError(f"{root}: no bundle {name!r} is active", hint=f"active here: {', '.join(known) or 'none'}")
    with _held(root / name, emit) as place:
        before = _pointed(place)
        earlier = _below(place, before)
        if before is None or not earlier:
            raise UsageError(f"{place}: {before} is the only version: there is none to go back to")
        found = check(place / _VERSIONS / earlier[0], threads=threads, public_key=public_key)
        found = replace(found, bundle=str(place / CURRENT))
        _point(place, earlier[0])
        return _done(place, name, earlier[0], before, found)


def _name(bundle: Path, public_key: Path | None) -> str:
    """Return the name in a bundle's manifest; it becomes a folder's, so it is held to be one."""
    manifest, _ = read_files(bundle, public_key)
    if not _NAME.fullmatch(manifest.name):
        raise IntegrityError(f"{bundle}: its name {manifest.name!r} cannot be a folder's")
    return manifest.name


@contextmanager
def _held(place: Path, emit: EventSink) -> Iterator[Path]:
    """Hold `place`, alone, with its folders made and what a kill left over removed."""
    if (place / CURRENT).exists() and not (place / CURRENT).is_symlink():
        raise DeviceError(
            f"{place / CURRENT}: no link, so it is not edgeft's", hint="move it away, or use another --root"
        )
    require_writable(place / _VERSIONS, purpose=_PURPOSE, option=_OPTION)
    with (
        disk_errors(place, purpose=_PURPOSE, option=_OPTION),
        exclusive(place / _LOCK, work="activate", emit=emit),
    ):
        _clear(place)
        try:
            yield place
        finally:
            _clear(place)


def _clear(place: Path) -> None:
    """Remove what is half done."""
    for left in (_INCOMING, _OUTGOING):
        shutil.rmtree(place / left, ignore_errors=True)
    (place / _LINK).unlink(missing_ok=True)


def _copy(bundle: Path, incoming: Path) -> None:
    """Copy plain files, flushed; what they hold is checked afterwards, on the copy."""
    incoming.mkdir()
    for file in sorted(bundle.iterdir()):
        write_atomic(incoming / file.name, file.read_bytes())


def _point(place: Path, version: str) -> None:
    """Let `current` point to `version`, in one step."""
    link = place / _LINK
    link.symlink_to(Path(_VERSIONS) / version)
    link.replace(place / CURRENT)
    fsync_folder(place)


def _discard(place: Path, version: str) -> None:
    """Remove a version: whole or not at all, so that a rollback meets none that is half removed."""
    (place / _VERSIONS / version).rename(place / _OUTGOING)
    fsync_folder(place)
    shutil.rmtree(place / _OUTGOING)


def _pointed(place: Path) -> str | None:
    link = place / CURRENT
    return link.readlink().name if link.is_symlink() else None


def _number(version: str | None) -> int:
    return 0 if version is None else int(version.partition("-")[0])


def _versions(place: Path) -> list[str]:
    """Return the names of all versions, the latest first."""
    return sorted((path.name for path in (place / _VERSIONS).iterdir() if _VERSION.fullmatch(path.name)), reverse=True)


def _below(place: Path, version: str | None) -> list[str]:
    return [name for name in _versions(place) if _number(name) < _number(version)]


def _above(place: Path, version: str | None) -> list[str]:
    return [name for name in _versions(place) if _number(name) > _number(version)]


def _same(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same files with the same bytes."""
    held = [{file.name: file for file in folder.iterdir()} if folder.is_dir() else {} for folder in (first, second)]
    return held[0].keys() == held[1].keys() and all(
        file.read_bytes() == held[1][name].read_bytes() for name, file in held[0].items()
    )


def _done(place: Path, name: str, version: str, before: str | None, found: CheckResult) -> Switch:
    kept = tuple(_below(place, version))
    return Switch(name, str(place / CURRENT), version, before, version != before, kept, found)
