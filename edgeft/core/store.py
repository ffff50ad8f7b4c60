"""The content-addressed store: one immutable folder per key, safe against kill -9 and against a second builder.

    <cache>/store/<key>/out/...      a stage's files, read-only
    <cache>/store/<key>/meta.json    what the key was made of, the digest of out/, measurements, notes, timings
    <cache>/work/<key>/entry/out/    the same being made; emptied at each start
    <cache>/work/<key>/scratch/      what a killed run resumes from; removed when the stage succeeds
    <cache>/locks/<key>              held while the key is built
    <cache>/last/<stage>.json        components of the stage's latest key: how `plan` can say what changed
    <cache>/memo/<digest>.*          results of pure functions: small ones as JSON, and what stages keep (`ctx.memo`)

An entry is made in work/, flushed to disk, then renamed into store/: it is there whole or not at all. Files are made
read-only and folders are not, so that `rm -rf` of a cache works for its owner.
"""

import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeft.core.atomic import fsync_folder, write_atomic
from edgeft.core.digest import sha256_json, sha256_tree
from edgeft.core.disk import require_writable
from edgeft.core.errors import EdgeftError, IntegrityError
from edgeft.core.events import EventSink, ignore
from edgeft.core.keys import Components, key_of
from edgeft.core.locks import exclusive, if_free
from edgeft.core.stage import Json

_META = "meta.json"
_ABANDONED_SECONDS = 7 * 86400
_READ_ONLY = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored stage output.

    Args:
        key: its cache key.
        folder: the stage's files.
        digest: sha256 over names and contents of those files: what downstream keys are made of.
        components: what the key was made of.
        measurements: deterministic numbers of the run that made it.
        notes: findings of that run.
        timings: numbers of that run that another run would not repeat.
        seconds: how long that run took.
        created: when it was stored, seconds since the epoch.
    """

    key: str
    folder: Path
    digest: str
    components: Components
    measurements: dict[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timings: dict[str, Json] = field(default_factory=dict)
    seconds: float = 0.0
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """The place where one key is being built: `out` is empty; `scratch` holds what a killed run left."""

    components: Components
    key: str
    out: Path
    scratch: Path

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something to resume from."""
        return any(self.scratch.iterdir())


class Store:
    """The store below one cache folder. Reading needs no preparation and writes nothing."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    @property
    def memo_folder(self) -> Path:
        """Where results are kept by the digest of what they depend on, across keys."""
        return self.cache / "memo"

    def prepare(self) -> None:
        """Make the folders, prove that they can be written, and drop work abandoned for a week.

        Raises:
            DeviceError: the cache cannot be written.
        """
        require_writable(self.cache, purpose="the cache", option="--cache")
        for name in ("store", "work", "locks", "last", "memo", "runs"):
            (self.cache / name).mkdir(exist_ok=True)
        for folder in (self.cache / "work").iterdir():
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                with if_free(self._lock(folder.name)) as free:
                    if free:
                        shutil.rmtree(folder)

    def lookup(self, key: str) -> Entry | None:
        """Return the entry of `key`, or None where there is none or it is damaged (see `damage`)."""
        meta = self._meta(key)
        if meta is None or self.damage(key):
            return None
        return Entry(
            key=key,
            folder=self._place(key) / "out",
            digest=meta["digest"],
            components=meta["components"],
            measurements=meta["measurements"],
            notes=tuple(meta["notes"]),
            timings=meta["timings"],
            seconds=meta["seconds"],
            created=meta["created"],
        )

    def damage(self, key: str) -> str | None:
        """Return what is wrong with the stored files of `key` as seen from names and sizes, or None."""
        if not self._place(key).is_dir():
            return None
        meta = self._meta(key)
        if meta is None:
            return f"{self._place(key) / _META} cannot be read"
        found = _sizes(self._place(key) / "out")
        for name, size in meta["files"].items():
            if found.get(name) != size:
                return f"{name} has {found.get(name, 'no')} bytes where {size} were stored"
        extra = sorted(found.keys() - meta["files"].keys())
        return f"{extra[0]} was added after it was stored" if extra else None

    def check(self, key: str) -> None:
        """Read every byte of the entry of `key` and compare with its digest.

        Raises:
            IntegrityError: the files are not those that were stored.
        """
        meta = self._meta(key)
        damage = self.damage(key) or ("there is no such entry" if meta is None else None)
        if damage or meta is None or sha256_tree(self._place(key) / "out") != meta["digest"]:
            raise IntegrityError(
                f"stored result {self._place(key)} is damaged: {damage or 'its content differs from its digest'}",
                hint=f"rm -rf {self._place(key)}  (the next build makes it again)",
            )

    @contextmanager
    def building(self, parts: Components, *, work: str, emit: EventSink = ignore) -> Iterator[Slot]:
        """Hold the lock of the key of `parts` and yield its slot; look it up again inside: another may have built it.

        Args:
            parts: what the key is made of.
            work: the stage's name, for the message to whoever waits.
            emit: where that message goes.
        """
        key = key_of(parts)
        with exclusive(self._lock(key), work=work, emit=emit):
            place = self.cache / "work" / key
            shutil.rmtree(place / "entry", ignore_errors=True)
            (place / "entry" / "out").mkdir(parents=True)
            (place / "scratch").mkdir(exist_ok=True)
            try:
                yield Slot(parts, key, place / "entry" / "out", place / "scratch")
            finally:
                shutil.rmtree(place / "entry", ignore_errors=True)

    def commit(
        self,
        slot: Slot,
        *,
        measurements: Mapping[str, Json],
        notes: tuple[str, ...],
        timings: Mapping[str, Json],
        seconds: float,
    ) -> Entry:
        """Make the slot's files read-only and durable, move them into the store, and drop the slot's scratch.

        Raises:
            EdgeftError: the stage wrote nothing, or a link.
        """
        files = _sizes(slot.out)
        if not files:
            raise EdgeftError(f"stage {slot.components['method']} wrote no file to {slot.out}")
        meta = {
            "key": slot.key,
            "components": slot.components,
            "digest": sha256_tree(slot.out),
            "files": files,
            "measurements": dict(measurements),
            "notes": list(notes),
            "timings": dict(timings),
            "seconds": seconds,
            "created": time.time(),
        }
        _seal(slot.out)
        write_atomic(slot.out.parent / _META, json.dumps(meta, indent=1, allow_nan=False))
        place = self._place(slot.key)
        if place.exists():
            shutil.rmtree(place)
        slot.out.parent.replace(place)
        fsync_folder(place.parent)
        shutil.rmtree(slot.scratch.parent, ignore_errors=True)
        entry = self.lookup(slot.key)
        if entry is None:
            raise EdgeftError(f"{place} cannot be read back: {self.damage(slot.key)}")
        return entry

    def has_scratch(self, key: str) -> bool:
        """Return whether a killed run left something that `key` can resume from."""
        scratch = self.cache / "work" / key / "scratch"
        return scratch.is_dir() and any(scratch.iterdir())

    def remember(self, stage: str, parts: Components) -> None:
        """Note `parts` as the latest of `stage`, for the next plan's reasons."""
        write_atomic(self.cache / "last" / f"{stage}.json", json.dumps(parts))

    def last(self, stage: str) -> Components | None:
        """Return what the latest key of `stage` in this cache was made of."""
        found = _read_json(self.cache / "last" / f"{stage}.json")
        return found if isinstance(found, dict) else None

    def entries(self) -> Iterator[Entry]:
        """Yield every entry that is whole."""
        folder = self.cache / "store"
        for place in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry := self.lookup(place.name):
                yield entry

    def memo(self, parts: Json, compute: Callable[[], dict[str, Json]]) -> dict[str, Json]:
        """Return `compute()`, kept on disk under the digest of `parts`; not kept where the cache does not exist yet."""
        path = self.memo_folder / f"{sha256_json(parts)}.json"
        found = _read_json(path)
        if isinstance(found, dict):
            return found
        result = compute()
        if path.parent.is_dir() and os.access(path.parent, os.W_OK):
            write_atomic(path, json.dumps(result))
        return result

    def _place(self, key: str) -> Path:
        return self.cache / "store" / key

    def _lock(self, key: str) -> Path:
        return self.cache / "locks" / key

    def _meta(self, key: str) -> dict[str, Any] | None:
        found = _read_json(self._place(key) / _META)
        return found if isinstance(found, dict) and found.get("key") == key else None


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _sizes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise EdgeftError(f"{path} is a link; a stage's output must hold its own bytes")
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _seal(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            fsync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(_READ_ONLY)
    fsync_folder(folder)
