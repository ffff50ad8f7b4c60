"""Content digests of what the user brings: files and folders outside the store, each read once per run."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgeft.core.digest import sha256_file, sha256_json
from edgeft.core.errors import DataError


class SourceDigests:
    """Digests of files and folders, kept for the length of one run.

    A folder's digest covers every file below it, names and contents, except names that begin with a dot and what is
    in `exclude`: the cache, the bundle and the recipe may live beside the images and must not count as data.
    """

    def __init__(self, exclude: tuple[Path, ...] = ()) -> None:
        self._exclude = frozenset(path.resolve() for path in exclude)
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return the hex sha256 of the file or folder at `path`.

        Raises:
            DataError: there is nothing at `path`, or a file cannot be read.
        """
        place = path.resolve()
        if place not in self._known:
            try:
                self._known[place] = sha256_file(place) if place.is_file() else self._tree(place)
            except OSError as error:
                raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from error
        return self._known[place]

    def _tree(self, folder: Path) -> str:
        names = sorted(_walk(str(folder), "", frozenset(map(str, self._exclude)), frozenset()))
        return sha256_json([[name, _sha256(f"{folder}/{name}")] for name in names])


def _walk(folder: str, prefix: str, exclude: frozenset[str], above: frozenset[tuple[int, int]]) -> Iterator[str]:
    here = os.stat(folder)  # noqa: PTH116 - thousands of small files: no Path object for each
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link back to a folder that we are in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.path in exclude:
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", exclude, above | {identity})
            elif entry.is_file():
                yield prefix + entry.name


def _sha256(path: str) -> str:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        return hashlib.file_digest(file, "sha256").hexdigest()
