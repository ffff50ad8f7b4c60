"""The method hybrid: methods in sequence, each from the checkpoint of the one before.

A finished step stays in the workspace, so a killed run goes on with the step that it was in.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_json
from edgeft.core.events import Message
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.finetune import adapted, adapters, bitfit, first_n_frozen, frozen, full, gradual, merge
from edgeft.finetune.config import HybridConfig, MergeConfig, TrainConfig
from edgeft.finetune.session import pretrained
from edgeft.models import inserts
from edgeft.models.checkpoint import META, WEIGHTS, load, read_meta, write_meta

_DONE = "done.json"
_HISTORY = "history.json"
_RUN: Mapping[str, Callable[[Context, Inputs, Any], StageResult]] = {
    "full": full.run,
    "frozen": frozen.run,
    "gradual": gradual.run,
    "first_n_frozen": first_n_frozen.run,
    "bitfit": bitfit.run,
    **dict.fromkeys(("lora", "ia3", "adapter", "prompt", "prefix"), adapted.run),
}


def run(ctx: Context, inputs: Inputs, config: HybridConfig) -> StageResult:
    """Run the steps and write what the last one's model has beside the base, with the history of all.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: a step's settings cannot be used, or training diverged.
    """
    given, notes, history = dict(inputs), [], []
    timings: dict[str, Any] = {"seconds_per_epoch": []}
    steps = config.step_configs()
    done: dict[str, Any] = {}
    for number, (name, settings) in enumerate(steps, 1):
        ctx.emit(Message(f"finetune: step {number} of {len(steps)}, {name}"))
        folder = ctx.workspace / f"step-{number}"
        done = _step(replace(ctx, folder=folder / "out", workspace=folder / "workspace"), given, name, settings)
        given["weights"] = folder / "checkpoint"
        notes += [f"{name}: {note}" for note in done["notes"] if number == 1 or not note.startswith("weights: ")]
        timings["seconds_per_epoch"] += done["timings"]["seconds_per_epoch"]
        for peak in ("peak_memory_bytes", "peak_gpu_memory_bytes"):
            timings[peak] = max((each for each in (timings.get(peak), done["timings"][peak]) if each), default=None)
        timings[f"step_{number}_{name}"] = done["timings"]
        history += [{**entry, "step": name} for entry in done["history"]]
    write_atomic(ctx.folder / _HISTORY, json.dumps(history, indent=2) + "\n")
    moved, total = _write(ctx, inputs, config, given["weights"])
    measurements: dict[str, Json] = {
        **done["measurements"],
        "epochs": len(history),
        "best_epoch": len(history) - len(done["history"]) + done["measurements"]["best_epoch"],
        "steps": [name for name, _ in steps],
        "trainable_parameters": moved,
        "parameters": total,
        "trainable_share": moved / total,
    }
    return StageResult(ctx.folder, measurements, tuple(notes), timings)


def _step(ctx: Context, inputs: Mapping[str, Path], name: str, settings: TrainConfig) -> dict[str, Any]:
    """Run one step, or read what it left when it ended."""
    place = ctx.folder.parent
    key = sha256_json({"method": name, "settings": settings.model_dump(mode="json"), "seed": ctx.seed})
    try:
        found: dict[str, Any] = json.loads((place / _DONE).read_bytes())
    except FileNotFoundError:
        found = {}
    if found.get("key") == key:
        return found
    for folder in (ctx.folder, place / "checkpoint"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ctx.workspace.mkdir(parents=True, exist_ok=True)
    result = _RUN[name](ctx, inputs, settings)
    made = result.folder
    if (made / adapters.META).is_file():
        together = replace(ctx, folder=place / "checkpoint")
        merge.run(together, {**inputs, "finetune": made}, MergeConfig(model=settings.model))
    else:
        for file in (WEIGHTS, META):
            shutil.copyfile(made / file, place / "checkpoint" / file)
    values = {
        "key": key,
        "measurements": dict(result.measurements),
        "notes": list(result.notes),
        "timings": dict(result.timings),
        "history": json.loads((made / _HISTORY).read_bytes()),
    }
    write_atomic(place / _DONE, json.dumps(values) + "\n")
    return values


def _write(ctx: Context, inputs: Inputs, config: HybridConfig, last: Path) -> tuple[int, int]:
    """Write what the checkpoint `last` has beside the base; return parameters in tensors that moved, and in all."""
    data = Dataset.open(inputs["data"])
    base, after = pretrained(ctx, inputs, config.model, data).module, load(last)[0]
    before = base.state_dict()
    moved = {
        name: tensor
        for name, tensor in after.state_dict().items()
        if name not in before or not torch.equal(tensor, before[name])
    }
    old = inserts.of(base)
    settings = adapters.own_settings([each for each in inserts.of(after) if each not in old])
    adapters.write(ctx.folder, moved, settings, adapters.base_digest(base), len(data.indices("train")))
    write_meta(ctx.folder, replace(read_meta(last), inserts=old))
    sizes = {name: each.numel() for name, each in after.named_parameters()}
    return sum(size for name, size in sizes.items() if name in moved), sum(sizes.values())
