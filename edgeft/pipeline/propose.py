"""The propose stage: which student to teach, where the recipe says `student: auto`.

    candidates > cut out of the teacher, untrained > exported, int8 > timed on this device > those within the budget
    > trained a little, the better half a little more, ... > the winner

Speed does not depend on what a network has learned, so nothing is trained before it is known to be fast enough. Reads
train and val; never test.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import Message
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.pipeline.stage_configs import ProposeConfig

PROPOSAL = "proposal.json"
_SAMPLES, _WARMUP, _MAX_SECONDS, _PROCESSES = 20, 3, 3.0, 3
_CALIBRATION: Mapping[str, Json] = {"calib_images": 32, "bias_images": 16, "max_drop_pp": 100.0}
"""Of a network that has learned nothing: its speed is asked for, not what it is worth."""
_NO_TRAINING: Mapping[str, Json] = {"search": False, "swap_activations": False, "follow": "float"}
_IMAGES: tuple[Mapping[str, Json], ...] = tuple({"prune": share} for share in (0.2, 0.35, 0.5, 0.65))
_TEXT_SHARES = ((2, 3), (1, 2), (1, 3))
"""Of a text teacher's layers."""
_LAYERS = ("num_hidden_layers", "n_layers")
"""What transformers' configs call their number."""
_UNTAUGHT = "edgeft.distill.knowledge:untrained"


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate as it begins.

    Args:
        number: its place among the candidates, from 1.
        candidate: its `student` and `prune`.
        name: what it is called in messages.
        milliseconds: median latency of the faster of int8 and float.
        size_bytes: of that file.
    """

    number: int
    candidate: Mapping[str, Json]
    name: str
    milliseconds: float
    size_bytes: int


def run(ctx: Context, inputs: Inputs, config: ProposeConfig) -> StageResult:
    """Write proposal.json: the candidate to teach.

    Args:
        ctx: where to write.
        inputs: as of the distill stage.
        config: the `distill:` block.

    Raises:
        UsageError: no candidate can be made, or none is within the budget.
        DeviceError: a timing process failed.
    """
    block = config.distill
    budget = float(block["budget_ms"])
    found, missed = [], []
    for number, candidate in enumerate(_candidates(inputs, block), 1):
        try:
            found.append(_measure(ctx, inputs, config, number, candidate))
        except (UsageError, DataError) as error:
            missed.append(f"student: {_named(candidate)} cannot be made: {error.message}")
    if not found:
        raise UsageError("; ".join(missed), hint="name students that can: distill.candidates")
    within = sorted((each for each in found if each.milliseconds <= budget), key=lambda each: -each.milliseconds)
    if not within:
        nearest = min(found, key=lambda each: each.milliseconds)
        raise UsageError(
            f"distill.budget_ms: {budget:g}, and no candidate is as fast on this device; the nearest is {nearest.name} "
            f"with {nearest.milliseconds:.2f} ms" + "".join(f"; {each}" for each in missed),
            hint=f"distill.budget_ms: {nearest.milliseconds * 1.1:.2f}, or add smaller students to distill.candidates",
        )
    finalists = within[: int(block["finalists"])]
    values, winner, failed = _halved(ctx, inputs, block, finalists)
    proposal = {"chosen": dict(winner.candidate), "number": winner.number}
    write_atomic(ctx.folder / PROPOSAL, json.dumps(proposal, indent=1) + "\n")
    told: list[Json] = [
        {"candidate": each.name, "milliseconds": each.milliseconds, "size_bytes": each.size_bytes} for each in found
    ]
    notes = (f"student: {winner.name}, {winner.milliseconds:.2f} ms untrained, within {budget:g} ms", *missed, *failed)
    trials: dict[str, Json] = {name: dict(each) for name, each in values.items()}
    return StageResult(ctx.folder, {"chosen": winner.name, "trials": trials}, notes, {"candidates": told})


def _candidates(inputs: Inputs, block: Mapping[str, Any]) -> list[Mapping[str, Json]]:
    if block["candidates"]:
        return list(block["candidates"])
    encoder = json.loads((inputs["checkpoint"] / "model.json").read_bytes())["encoder"]
    if encoder is None:
        return list(_IMAGES)
    layers = next((int(encoder[key]) for key in _LAYERS if key in encoder), 1)
    kept = {max(1, layers * share // of) for share, of in _TEXT_SHARES} - {layers}
    if not kept:
        raise UsageError(
            "distill.student: auto, and the teacher has no layers to leave out",
            hint="name students: distill.candidates: [{student: {feed_forward: 256}}]",
        )
    return [{"student": {"layers": each}} for each in sorted(kept, reverse=True)]


def _named(candidate: Mapping[str, Any]) -> str:
    student = _written(candidate)
    parts = [f"{key} {value}" for key, value in student.items()]
    return ", ".join([*parts, *([f"prune {candidate['prune']:g}"] if candidate.get("prune") else [])])


def _written(candidate: Mapping[str, Any]) -> dict[str, Json]:
    """Return what a candidate's `student` says that is not the default."""
    student = dict(candidate.get("student") or {})
    return {key: value for key, value in student.items() if value not in (None, False, "spread")}


def _settings(block: Mapping[str, Any], candidate: Mapping[str, Json], **changes: Json) -> Any:  # noqa: ANN401 - pydantic
    """Return the distill method's config with this student, trained for itself."""
    alone = {"budget_ms": None, "candidates": (), "baselines": (), "early_stop": None, "prune_steps": 1}
    values = {**block, **alone, "student": _written(candidate), "prune": candidate.get("prune"), **changes}
    return catalog.resolve(catalog.find("distill", "knowledge").config).model_validate(values)


def _measure(
    ctx: Context, inputs: Inputs, config: ProposeConfig, number: int, candidate: Mapping[str, Json]
) -> Measured:
    """Make a candidate as it begins, export and quantize it, and time it in fresh processes."""
    from edgeft.pipeline.device.place import HERE
    from edgeft.pipeline.timed import timed
    from edgeft.runtime.worker import Request

    name = _named(candidate)
    ctx.emit(Message(f"propose: {name}"))
    place = ctx.workspace / _file(name)
    done = place / "measured.json"
    if not done.is_file():
        student, graph, compress = (_inside(ctx, place / each) for each in ("student", "graph", "compress"))
        catalog.resolve(_UNTAUGHT)(student, _offered(inputs, number), _settings(config.distill, candidate))
        data = {"data": inputs["data"]}
        _run("export", "onnx", graph, {**data, "checkpoint": student.folder}, config.export)
        settings = {**config.compress, **_CALIBRATION, **_NO_TRAINING, "target": config.target}
        if settings.get("method") == "qat":
            settings["method"] = "gptq"  # training changes no time
        _run("compress", "auto", compress, {**data, "graph": graph.folder}, settings)
        fed = timed(inputs["data"], None, place / "inputs.npz")
        found = []
        for file in sorted((compress.folder / "candidates").glob("*/model.onnx")):
            request = fed.model_alone(Request(str(file), config.threads, False, _SAMPLES, _WARMUP, _MAX_SECONDS))
            with (ctx.place or HERE).launching([request]) as launch:
                runs = [median(launch(request).samples_ms) for _ in range(_PROCESSES)]
            found.append((median(runs), file.stat().st_size))
        write_atomic(done, json.dumps(min(found)))
    milliseconds, size = json.loads(done.read_bytes())
    return Measured(number, candidate, name, milliseconds, size)


def _offered(inputs: Inputs, number: int) -> Inputs:
    """Return the inputs with the candidate's own weights as "student", where the recipe names some."""
    role = f"student-{number}"
    return {**inputs, "student": inputs[role]} if role in inputs else inputs


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_").replace("/", "_")


def _inside(ctx: Context, folder: Path) -> Context:
    """Return a context of its own below `folder`."""
    for each in (folder / "out", folder / "work"):
        each.mkdir(parents=True, exist_ok=True)
    return replace(ctx, folder=folder / "out", workspace=folder / "work")


def _run(kind: str, name: str, ctx: Context, inputs: Inputs, values: Mapping[str, Json]) -> StageResult:
    method = catalog.find(kind, name)
    config: Any = catalog.resolve(method.config)
    known = {key: value for key, value in values.items() if key in config.model_fields}
    result: StageResult = catalog.resolve(method.run)(ctx, inputs, config.model_validate(known))
    return result


def _halved(
    ctx: Context, inputs: Inputs, block: Mapping[str, Any], finalists: Sequence[Measured]
) -> tuple[dict[str, dict[str, Json]], Measured, list[str]]:
    """Train the finalists in rounds, each twice as long as the one before, the last one for `trial_epochs`.

    The worse half of each round is left out: successive halving (Jamieson & Talwalkar 2016), all of a round compared at
    once. Optuna's pruner decides as values come in, so that whoever is tried first goes on.

    Returns:
        Of each finalist the validation metric by epochs, the winner, and who could not be taught.

    Raises:
        UsageError: nobody can be taught.
    """
    told: dict[str, dict[str, Json]] = {each.name: {} for each in finalists}
    failed: list[str] = []
    if len(finalists) == 1:
        return told, finalists[0], failed
    live, scores = list(finalists), dict.fromkeys(told, 0.0)
    while len(live) > 1:
        epochs = max(1, int(block["trial_epochs"]) >> (math.ceil(math.log2(len(live))) - 1))
        for each in tuple(live):
            try:
                scores[each.name] = _tried(ctx, inputs, block, each, epochs)
            except (UsageError, DataError) as error:
                failed.append(f"student: {each.name} cannot be taught: {error.message}")
                live.remove(each)
                continue
            told[each.name][str(epochs)] = scores[each.name]
        if not live:
            raise UsageError("; ".join(failed), hint="name students that can: distill.candidates")
        live.sort(key=lambda each: -scores[each.name])
        live = live[: math.ceil(len(live) / 2)]
    return told, live[0], failed


def _tried(ctx: Context, inputs: Inputs, block: Mapping[str, Any], finalist: Measured, epochs: int) -> float:
    """Train a finalist for `epochs` epochs and return its validation metric, larger is better."""
    place = ctx.workspace / f"trial-{epochs}-{_file(finalist.name)}"
    done = place / "value.json"
    if not done.is_file():
        ctx.emit(Message(f"propose: {finalist.name}, {epochs} epochs"))
        taught: Any = catalog.resolve(catalog.find("distill", "knowledge").run)
        settings = _settings(block, finalist.candidate, epochs=epochs)
        found = taught(_inside(ctx, place), _offered(inputs, finalist.number), settings)
        metric = str(block["metric"])
        value = float(found.measurements[f"val_{metric}"])
        write_atomic(done, json.dumps(-value if metric == "loss" else value))
    score: float = json.loads(done.read_bytes())
    return score
