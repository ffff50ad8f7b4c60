"""Runs one stage after another; what is stored already is reused, what was stopped goes on."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core import machine
from edgeft.core.errors import EdgeftError
from edgeft.core.events import EventSink, StageFinished, StageStarted
from edgeft.core.place import Place
from edgeft.core.record import StageRecord
from edgeft.core.stage import Context, Json, StageResult
from edgeft.core.store import Entry, Store
from edgeft.pipeline.launch import launched
from edgeft.recipe.resolve import Resolved, Resolver
from edgeft.recipe.stage import Stage


def walk(
    stages: Sequence[Stage], resolver: Resolver, store: Store, emit: EventSink, place: Place | None = None
) -> tuple[dict[str, Entry], tuple[StageRecord, ...]]:
    """Run or reuse every stage in order.

    Args:
        stages: in running order.
        resolver: decides what is stored.
        store: where outputs go.
        emit: where events go.
        place: where stages time models; None: on this machine.

    Returns:
        The stored output of each stage by name, and the stages as they ran.

    Raises:
        EdgeftError: a stage failed; earlier stages stay stored, and its own scratch is kept for the next run.
    """
    entries: dict[str, Entry] = {}
    records: list[StageRecord] = []
    for stage in stages:
        started = time.perf_counter()
        resolved = resolver.resolve(stage)
        if resolved.components is None:
            raise EdgeftError(f"stage {stage.name} reads a stage that has not run: {dict(stage.upstream)}")
        entry, reused = resolved.entry, resolved.entry is not None
        if entry is None:
            emit(StageStarted(stage.name, resolved.reason))
            inputs = {role: entries[name].folder for role, name in stage.upstream.items()} | dict(stage.sources)
            entry, reused = _make(resolved, inputs, store, resolver.seed + stage.seed_offset, emit, place)
        entries[stage.name] = entry
        resolver.outputs[stage.name] = entry.digest
        store.remember(stage.name, resolved.components)
        seconds = time.perf_counter() - started
        emit(StageFinished(stage.name, reused, seconds))
        records.append(_record(stage, entry, resolved.reason, seconds, reused=reused))
    return entries, tuple(records)


def _make(
    resolved: Resolved, inputs: Mapping[str, Path], store: Store, seed: int, emit: EventSink, place: Place | None
) -> tuple[Entry, bool]:
    """Return the stage's new entry, or the one that another process made while we waited for its lock."""
    stage, parts = resolved.stage, resolved.components or {}
    with store.building(parts, work=stage.name, emit=emit) as slot:
        if entry := store.lookup(slot.key):
            return entry, True
        began = time.perf_counter()
        context = Context(
            folder=slot.out,
            workspace=slot.scratch,
            seed=seed,
            threads=machine.threads(),
            emit=emit,
            memo=store.memo_folder,
            place=place,
        )
        result = _run(stage, inputs, context)
        made = store.commit(
            slot,
            measurements=_finite(stage, result.measurements),
            notes=result.notes,
            timings=_finite(stage, result.timings),
            seconds=time.perf_counter() - began,
        )
        return made, False


def _run(stage: Stage, inputs: Mapping[str, Path], context: Context) -> StageResult:
    processes = getattr(stage.config, "processes", 1)
    if processes > 1:
        return launched(stage.method, context, inputs, stage.config, processes)
    run: Any = catalog.resolve(stage.method.run)
    result = run(context, inputs, stage.config)
    if not isinstance(result, StageResult) or result.folder != context.folder:
        raise EdgeftError(f"{stage.method.run} must return a StageResult with folder = ctx.folder, got {result!r}")
    return result


def _finite(stage: Stage, numbers: Mapping[str, Json]) -> dict[str, Json]:
    """Refuse NaN and infinity: a record must be JSON that every reader takes."""

    def bad(value: Json) -> bool:
        if isinstance(value, float):
            return value != value or value in {float("inf"), float("-inf")}  # noqa: PLR0124 - NaN
        if isinstance(value, dict):
            return any(map(bad, value.values()))
        return isinstance(value, list | tuple) and any(map(bad, value))

    names = [name for name, value in numbers.items() if bad(value)]
    if names:
        raise EdgeftError(f"stage {stage.name} reports {', '.join(names)} as NaN or infinity; null says 'undefined'")
    return dict(numbers)


def _record(stage: Stage, entry: Entry, reason: str, seconds: float, *, reused: bool) -> StageRecord:
    return StageRecord(
        name=stage.name,
        method=stage.method.name,
        key=entry.key,
        reused=reused,
        reason="reused" if reused else reason,
        seconds=seconds,
        measurements=entry.measurements,
        notes=entry.notes,
        timings={**entry.timings, "seconds": entry.seconds},
    )
