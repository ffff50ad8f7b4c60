"""`edgeft build`: walk the plan, measure latency, apply the gates, write the record, assemble the bundle.

A build whose gates fail still leaves its bundle for inspection, as NAME.failed: it never takes the place of a good one.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeft import __version__, catalog
from edgeft.core import machine
from edgeft.core.atomic import write_atomic
from edgeft.core.disk import disk_errors, require_writable
from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.core.keys import versions
from edgeft.core.record import Gate, StageRecord
from edgeft.core.store import Entry, Store
from edgeft.pipeline import gates as judged
from edgeft.pipeline import latency as timing
from edgeft.pipeline.assemble import assemble, lowered_model
from edgeft.pipeline.distillation import timed_beside_teacher
from edgeft.pipeline.record import RunRecord, new_run, write
from edgeft.pipeline.walk import walk
from edgeft.recipe.model import Recipe, failed_folder
from edgeft.recipe.plan import check_finite, resolved_recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import TEACHER_GRAPH, Stage, stages

_FP32_MODEL = "candidates/fp32/model.onnx"
ADAPTER_FILES = ("adapter.safetensors", "model.json", "adapter.json")
"""What a finetune stage that leaves adapters writes of them, in the order in which they are copied."""


def build(
    recipe: Recipe,
    *,
    cache: Path,
    out: Path | None = None,
    latency: bool = True,
    emit: EventSink = ignore,
    strict: bool = False,
    adapters: Path | None = None,
) -> RunRecord:
    """Run `recipe` to a verified bundle; what is stored already is reused, what was stopped goes on.

    Args:
        recipe: what to build.
        cache: where stage outputs and run records are kept.
        out: the bundle's folder; default: dist/NAME beside the recipe.
        latency: whether to measure latency.
        emit: where events go.
        strict: whether a gate that cannot decide makes the exit code 7.
        adapters: where the adapters that were trained are copied to, new, empty or of an earlier build; None: nowhere.

    Raises:
        EdgeftError: a stage failed; its exit code says of what kind. Failed gates are no exception: see the record.
    """
    from edgeft.bundle.pack import refuse_strangers

    began = time.perf_counter()
    run, started = new_run()
    bundle = (out or recipe.bundle_folder).absolute()
    refuse_strangers(bundle)
    if adapters is not None:
        _require_adapters(recipe, adapters)
    require_writable(bundle.parent, purpose="the bundle's folder", option="--out")
    store = Store(cache.absolute())
    store.prepare()
    listed = stages(recipe, store)
    check_finite(listed)
    images = next((stage.sources["images"] for stage in listed if "images" in stage.sources), None)
    with disk_errors(store.cache, purpose="the cache", option="--cache"):
        resolver = Resolver(store, source_digests(recipe, store.cache, bundle), recipe.seed)
        entries, ran = walk(listed, resolver, store, emit)
        place = store.cache / "runs" / run
        timed = _timed(recipe, entries, images, place, emit) if latency else _Timed()
        beside = _beside_teacher(recipe, entries, place, emit) if latency else None
    if adapters is not None:
        with disk_errors(adapters, purpose="the adapters' folder", option="--adapters"):
            for name in ADAPTER_FILES:
                write_atomic(adapters / name, (entries["finetune"].folder / name).read_bytes())
    found = _read(entries, recipe)
    if beside is not None:
        found["verify"]["distillation"]["latency"] = timed_beside_teacher(
            beside, found["verify"]["distillation"]["teachers"]
        )
    gates = (*(judged.gate_from_json(gate) for gate in found["verify"]["gates"]), *timed.gates)
    status, exit_code = judged.status(gates, strict=strict)
    place = failed_folder(bundle) if status == "failed" else bundle
    record = RunRecord(
        run=run,
        status=status,
        exit_code=exit_code,
        recipe=resolved_recipe(recipe, listed),
        recipe_text=recipe.text,
        bundle=str(place),
        report=str(place / "report.html"),
        gates=gates,
        stages=(*ran, *timed.stages),
        latency=timed.compared,
        machine=machine.facts(),
        versions={"edgeft": __version__, **_versions(listed)},
        started=started,
        seconds=time.perf_counter() - began,
        seed=recipe.seed,
        **found,
    )
    with disk_errors(place.parent, purpose="the bundle's folder", option="--out"):
        assemble(record, entries, recipe, images, place)
        if place == bundle:
            _remove_failed(bundle)
    with disk_errors(store.cache, purpose="the cache", option="--cache"):
        write(record, store.cache)
    return record


def _require_adapters(recipe: Recipe, folder: Path) -> None:
    names = sorted(method.name for method in catalog.methods("merge"))
    if recipe.finetune.method.name not in names:
        raise UsageError(
            f"--adapters: finetune.method {recipe.finetune.method.name} leaves none",
            hint=f"methods that do: {', '.join(names)}",
        )
    strange = sorted({path.name for path in folder.iterdir()} - set(ADAPTER_FILES)) if folder.is_dir() else []
    if strange:
        raise UsageError(f"--adapters: {folder} holds {strange[0]}", hint="name a new folder")


@dataclass(frozen=True, slots=True)
class _Timed:
    compared: dict[str, Any] | None = None
    gates: tuple[Gate, ...] = ()
    stages: tuple[StageRecord, ...] = ()


def _timed(recipe: Recipe, entries: Mapping[str, Entry], images: Path | None, folder: Path, emit: EventSink) -> _Timed:
    compared, gates, record = timing.measure(
        recipe.verify.latency,
        fp32=entries["compress"].folder / _FP32_MODEL,
        lowered=lowered_model(entries, recipe.lower.targets[0]),
        data=entries["data"].folder,
        images=images,
        folder=folder,
        emit=emit,
    )
    return _Timed(compared, gates, (record,))


def _beside_teacher(
    recipe: Recipe, entries: Mapping[str, Entry], folder: Path, emit: EventSink
) -> dict[str, Any] | None:
    """Return what ships timed beside its teacher, or None where nothing was distilled."""
    if TEACHER_GRAPH not in entries:
        return None
    data = entries["data"].folder
    return timing.beside_teacher(
        recipe.verify.latency,
        teacher=entries[TEACHER_GRAPH].folder / "model.onnx",
        lowered=lowered_model(entries, recipe.lower.targets[0]),
        teachers_data=entries["teacher_data"].folder if "teacher_data" in entries else data,
        data=data,
        folder=folder,
        emit=emit,
    )


def _remove_failed(bundle: Path) -> None:
    """Remove what an earlier build that failed left beside the bundle."""
    failed = failed_folder(bundle)
    if (failed / "manifest.json").is_file():
        shutil.rmtree(failed)


def _read(entries: Mapping[str, Entry], recipe: Recipe) -> dict[str, Any]:
    """Return what the record quotes from stage outputs."""
    target = recipe.lower.targets[0]
    places = {
        "data": entries["data"].folder / "dataset.json",
        "candidates": entries["compress"].folder / "candidates.json",
        "lint": entries["lower"].folder / target / "lint.json",
        "verify": entries["verify"].folder / "verify.json",
        "history": entries["finetune"].folder / "history.json",
    }
    choice = json.loads((entries["choose"].folder / "choice.json").read_bytes()) | entries["choose"].timings
    return {"choice": choice, **{name: json.loads(path.read_bytes()) for name, path in places.items()}}


def _versions(listed: tuple[Stage, ...]) -> dict[str, str]:
    """Return the versions of every library that took part."""
    names = {name for stage in listed for name in stage.method.needs}
    return versions(tuple(sorted(names)))
