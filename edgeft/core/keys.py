"""Cache keys: sha256 over everything that a stage's result depends on, kept as components so that a change has a name.

    key = sha256(canonical JSON of {scheme, method, version, config, inputs, needs, seed, device?})

Inputs enter by content digest, so an upstream rerun that yields the same bytes stops there. The scheme's version is
raised when the meaning of a component changes. (The idea of a versioned provenance hash: snakemake, caching/hash.py.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from edgeft.core.digest import sha256_json
from edgeft.core.stage import Json, Method

SCHEME = 1
"""Version of the key's own make-up."""

Components: TypeAlias = dict[str, Json]
"""What a key is made of; JSON, so that it can be stored beside the result and compared later."""


@dataclass(frozen=True, slots=True)
class Change:
    """One leaf that differs between two component trees; a missing side is None with `added` or `removed` set."""

    path: tuple[str, ...]
    old: Json
    new: Json
    added: bool = False
    removed: bool = False


def components(
    method: Method,
    config: Mapping[str, Json],
    *,
    inputs: Mapping[str, str],
    seed: int,
    device: Mapping[str, Json] | None = None,
) -> Components:
    """Return what the key of one stage is made of.

    Args:
        method: what runs.
        config: its full config, defaults filled in.
        inputs: content digest by role.
        seed: the run's seed.
        device: facts of this device; only where the result depends on it.
    """
    parts: Components = {
        "scheme": SCHEME,
        "method": f"{method.kind}/{method.name}",
        "version": method.version,
        "config": dict(config),
        "inputs": dict(inputs),
        "needs": dict(versions(method.needs)),
        "seed": seed,
    }
    if device is not None:
        parts["device"] = dict(device)
    return parts


def key_of(parts: Components) -> str:
    """Return the key: 64 hex digits."""
    return sha256_json(parts)


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each distribution; "absent" where there is none."""
    return {name: _version(name) for name in distributions}


def changes(old: Json, new: Json, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Yield every leaf that differs, in the order of `new`, then what only `old` has."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in new.items():
            if name in old:
                yield from changes(old[name], value, (*path, name))
            else:
                yield Change((*path, name), None, value, added=True)
        for name, value in old.items():
            if name not in new:
                yield Change((*path, name), value, None, removed=True)
    elif old != new or isinstance(old, bool) is not isinstance(new, bool):
        yield Change(path, old, new)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
