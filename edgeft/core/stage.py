"""The stage contract: a method is data that names a config class and a plain function `run(ctx, inputs, config)`.

Stages exchange immutable folders on disk. `run` writes only below `ctx.folder`; scratch that lets a killed run resume
(checkpoints) goes to `ctx.workspace`, which survives until the stage succeeds. What a stage under another key may
reuse goes to `ctx.memo`, named by the digest of everything that it depends on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from edgeft.core.events import EventSink, ignore
from edgeft.core.place import Place
from edgeft.core.seeds import derive_seed

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON file can hold."""

Inputs: TypeAlias = Mapping[str, Path]
"""Upstream stage folders by role, e.g. {"data": ..., "checkpoint": ...}."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to do a stage, listed in the catalog by import strings so that listing imports nothing.

    Args:
        kind: the stage it serves, e.g. "finetune".
        name: what the recipe calls it, e.g. "gradual".
        config: "module:Class" of its pydantic config.
        run: "module:function" with signature `run(ctx, inputs, config) -> StageResult`.
        version: raised when results for equal inputs change; part of the cache key.
        needs: distributions whose versions are part of the cache key.
    """

    kind: str
    name: str
    config: str
    run: str
    version: int
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What the engine hands to a method.

    Args:
        folder: empty output folder; becomes read-only in the store when the stage succeeds.
        workspace: scratch that survives a kill; removed when the stage succeeds.
        seed: the run's seed; use `seed_for`.
        threads: how many CPU threads the stage may use.
        emit: where progress goes.
        memo: folder of results kept by content, shared by all keys; a file there may vanish or be damaged. None: keep
            nothing.
        place: where models are timed; None: on this machine.
    """

    folder: Path
    workspace: Path
    seed: int
    threads: int
    emit: EventSink = ignore
    memo: Path | None = None
    place: Place | None = None

    def seed_for(self, name: str) -> int:
        """Return the 32-bit seed of the consumer `name`."""
        return derive_seed(self.seed, name)


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a method returns.

    Args:
        folder: where the outputs are (`ctx.folder`).
        measurements: numbers for the record; canonical-JSON values; deterministic ones only.
        notes: findings a reader must see: what was skipped, substituted or quarantined, and why.
        timings: measurements that differ from run to run (seconds, milliseconds, bytes of memory).
    """

    folder: Path
    measurements: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timings: Mapping[str, Json] = field(default_factory=dict)
