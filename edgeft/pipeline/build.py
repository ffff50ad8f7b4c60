"""`edgeft build`: walk the plan, measure latency, apply the gates, write the record, assemble the bundle.

A build whose gates fail still leaves its bundle for inspection, as NAME.failed: it never takes the place of a good one.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft import __version__, catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.disk import disk_errors, require_writable
from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.core.keys import versions
from edgeft.core.store import Entry, Store
from edgeft.pipeline import gates as judged
from edgeft.pipeline import latency as timing
from edgeft.pipeline.assemble import assemble
from edgeft.pipeline.device.place import HERE, BuildPlace, There, asked
from edgeft.pipeline.record import RunRecord, new_run, write
from edgeft.pipeline.target_result import result_of
from edgeft.pipeline.verification.distillation import timed_beside_teacher
from edgeft.pipeline.walk import walk
from edgeft.recipe.model import Recipe, failed_folder, target_folders
from edgeft.recipe.plan import check_finite, resolved_recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stage import Stage
from edgeft.recipe.stages import TEACHER_GRAPH, stages

if TYPE_CHECKING:
    from edgeft.bundle.sign import SigningKey

ADAPTER_FILES = ("adapter.safetensors", "model.json", "adapter.json")
"""What a finetune stage that leaves adapters writes of them, in the order in which they are copied."""


def build(  # noqa: PLR0913 - what to build, where to, and what may be left out
    recipe: Recipe,
    *,
    cache: Path,
    out: Path | None = None,
    latency: bool = True,
    emit: EventSink = ignore,
    strict: bool = False,
    adapters: Path | None = None,
    key: "SigningKey | None" = None,
    device: BuildPlace = HERE,
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
        key: that signs the bundle, unless a gate failed; None leaves it unsigned.
        device: where candidates are timed and, if it is another machine, the bundle is replayed.

    Raises:
        EdgeftError: a stage failed; its exit code says of what kind. Failed gates are no exception: see the record.
    """
    from edgeft.bundle.pack import refuse_strangers

    began = time.perf_counter()
    run, started = new_run()
    bundle = (out or recipe.bundle_folder).absolute()
    folders = target_folders(recipe, bundle)
    for folder in folders.values():
        refuse_strangers(folder)
    if key is not None:
        from edgeft.bundle.sign import require_key

        require_key(key)
    if adapters is not None:
        _require_adapters(recipe, adapters)
    require_writable(bundle.parent, purpose="the bundle's folder", option="--out")
    store = Store(cache.absolute())
    store.prepare()
    listed = stages(recipe, store)
    check_finite(listed)
    fingerprint = asked(device, listed, texts=bool(getattr(recipe.model, "takes_texts", False)))
    images = next((stage.sources["images"] for stage in listed if "images" in stage.sources), None)
    with disk_errors(store.cache, purpose="the cache", option="--cache"):
        sources = source_digests(recipe, store.cache, bundle)
        resolver = Resolver(store, sources, recipe.seed, device=fingerprint)
        entries, ran = walk(listed, resolver, store, emit, device)
        place = store.cache / "runs" / run
        results = [
            result_of(
                recipe, target, entries, images=images, folder=place, emit=emit, place=device if latency else None
            )
            for target in recipe.lower.targets
        ]
        beside = _beside_teacher(recipe, entries, results[0].model, place, emit, device) if latency else None
    if adapters is not None:
        with disk_errors(adapters, purpose="the adapters' folder", option="--adapters"):
            for name in ADAPTER_FILES:
                write_atomic(adapters / name, (entries["finetune"].folder / name).read_bytes())
    found = results[0].found
    if beside is not None:
        found["verify"]["distillation"]["latency"] = timed_beside_teacher(
            beside, found["verify"]["distillation"]["teachers"]
        )
    gates = (*results[0].gates, *(named for result in results[1:] for named in result.named_gates()))
    status, exit_code = judged.status(gates, strict=strict)
    ends = {target: failed_folder(where) if status == "failed" else where for target, where in folders.items()}
    place, several = ends[results[0].target], results if len(results) > 1 else []
    record = RunRecord(
        run=run,
        status=status,
        exit_code=exit_code,
        recipe=resolved_recipe(recipe, listed),
        recipe_text=recipe.text,
        bundle=str(place),
        report=str(place / "report.html"),
        gates=gates,
        stages=(*ran, *(stage for result in results for stage in result.stages)),
        latency=results[0].compared,
        machine=device.facts(),
        versions={"edgeft": __version__, **_versions(listed)},
        started=started,
        seconds=time.perf_counter() - began,
        seed=recipe.seed,
        targets=tuple({**result.row(), "bundle": str(ends[result.target])} for result in several),
        **found,
    )
    if isinstance(device, There):
        from edgeft.pipeline.device.replay import replayed

        with disk_errors(store.cache, purpose="the cache", option="--cache"):
            record = replayed(record, results[0], recipe, images, device, store.cache / "runs" / run)
    with disk_errors(place.parent, purpose="the bundle's folder", option="--out"):
        for result in reversed(results):  # the first, which the record names, takes its place last
            end = ends[result.target]
            told = record if result is results[0] else result.told(record, end)
            assemble(told, result, recipe, images, end, None if status == "failed" else key)
            if status != "failed":
                _remove(failed_folder(end))
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


def _beside_teacher(
    recipe: Recipe, entries: Mapping[str, Entry], lowered: Path, folder: Path, emit: EventSink, device: BuildPlace
) -> dict[str, Any] | None:
    """Return what ships timed beside its teacher, or None where nothing was distilled."""
    if TEACHER_GRAPH not in entries:
        return None
    data = entries["data"].folder
    return timing.beside_teacher(
        recipe.verify.latency,
        teacher=entries[TEACHER_GRAPH].folder / "model.onnx",
        lowered=lowered,
        teachers_data=entries["teacher_data"].folder if "teacher_data" in entries else data,
        data=data,
        folder=folder,
        emit=emit,
        place=device,
    )


def _remove(failed: Path) -> None:
    """Remove what an earlier build that failed left beside a bundle."""
    if (failed / "manifest.json").is_file():
        shutil.rmtree(failed)


def _versions(listed: tuple[Stage, ...]) -> dict[str, str]:
    """Return the versions of every library that took part."""
    names = {name for stage in listed for name in stage.method.needs}
    return versions(tuple(sorted(names)))
