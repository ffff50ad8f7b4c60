"""The stages of a recipe in their fixed order: each with its method, its full config and where its inputs come from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeft import catalog
from edgeft.config import refusals
from edgeft.core.errors import UsageError
from edgeft.core.keys import versions
from edgeft.core.stage import Json
from edgeft.core.store import Store
from edgeft.recipe.model import Block, Recipe
from edgeft.recipe.named import TOKENIZER, augmenting, data_sources, students_of, unlabelled, weights_of
from edgeft.recipe.stage import Stage, bare, stage_of
from edgeft.recipe.target_stages import ANSWERS, bars_of, follows_teacher, require_targets, target_stages

_DESCRIBE = "edgeft.models.sources:describe"
_DESCRIBE_TEXT = "edgeft.models.text_source:describe"
_TASK = frozenset({"augment", "class_weights", "device", "focal_gamma", "loss", "metric", "precision", "sampling"})
"""Of `finetune:` what holds for a student, too, unless `distill:` says otherwise: the task, not how it is learned."""
TEACHER_GRAPH = "teacher_graph"
"""The stage that exports what a student was taught by, to be timed beside it."""


def stages(recipe: Recipe, store: Store) -> tuple[Stage, ...]:
    """Return the recipe's stages in running order.

    Raises:
        DataError: a file or folder that the recipe names is missing.
        DeviceError: a package that it names is not installed.
        UsageError: a method or exporter is unknown, or its config is refused.
    """
    source, images = data_sources(recipe)
    weights = weights_of(recipe)
    text = bool(getattr(recipe.model, "takes_texts", False))
    files = {"tokenizer": weights["weights"] / TOKENIZER} if text else {"images": images}
    bars = bars_of(recipe)
    model = recipe.model.model_dump(mode="json")
    require_targets(recipe)
    if recipe.verify.accuracy.max_drop_from_teacher_pp is not None and recipe.distill is None:
        raise UsageError(
            "verify.accuracy.max_drop_from_teacher_pp: the recipe has no distill block, so nothing has a teacher",
            hint="remove it, or add a student, e.g. distill: {prune: 0.3}",
        )
    read = stage_of(
        "data",
        recipe.data,
        {"input": _input(recipe, weights, store)},
        {},
        sources={"source": source, **files, **unlabelled(recipe)},
    )
    taught = _own_input(recipe, store)
    teacher_data = [] if taught is None else [replace(read, name="teacher_data")]
    if taught is not None:
        read = stage_of("data", recipe.data, {"input": taught}, {}, sources=read.sources)
    seen = "teacher_data" if teacher_data else "data"
    tuned = _finetuned(recipe, {"model": model}, seen, weights)
    checkpoint = tuned[-1].name
    distill: list[Stage] = []
    teachers: dict[str, str] = {}
    if recipe.distill is not None:
        distill, teachers = _distilled(recipe, recipe.distill, tuned, bars, weights)
        checkpoint = "distill"
    lowered = [
        stage
        for target in recipe.lower.targets
        for stage in target_stages(recipe, target, checkpoint, {} if text else {"images": images}, teachers)
    ]
    return (
        read,
        *teacher_data,
        *tuned,
        *distill,
        stage_of("export", recipe.export, {}, {"checkpoint": checkpoint, "data": "data"}),
        *lowered,
    )


def _finetuned(recipe: Recipe, filled: Mapping[str, Json], data: str, weights: Mapping[str, Path]) -> list[Stage]:
    """Return the fine-tuning of `data`, and the merge where the method has one."""
    tuned = stage_of("finetune", recipe.finetune, filled, {"data": data}, sources={**weights, **augmenting(recipe)})
    merge = [
        stage_of("merge", bare(method), filled, {"data": data, "finetune": "finetune"}, sources=weights)
        for method in catalog.methods("merge")
        if method.name == recipe.finetune.method.name
    ]
    return [tuned, *merge]


def _distilled(
    recipe: Recipe, block: Block, tuned: Sequence[Stage], bars: Mapping[str, Json], weights: Mapping[str, Path]
) -> tuple[list[Stage], dict[str, str]]:
    """Return what stands between fine-tuning and export, and by role what verify sets the student beside.

    Args:
        recipe: the recipe.
        block: its `distill:`.
        tuned: fine-tuning, and the merge where there is one.
        bars: what is judged and timed, and how.
        weights: the pretrained weights by role.
    """
    written, data = block.values.get("teachers"), tuned[0].upstream["data"]
    others = [
        [_again(stage, number) for stage in tuned]
        for number in range(2, (written if isinstance(written, int) else 1) + 1)
    ]
    ends = [tuned[-1].name, *(each[-1].name for each in others)]
    seen = {} if data == "data" else {"teacher_data": data}
    given = {"data": "data", **seen, **_by_role("checkpoint", ends)}
    sources = students_of(block, recipe, weights)
    unbalanced = {"sampling"} if recipe.data.values.get("unlabelled") else set()  # no label, no class to balance
    task = _TASK - unbalanced
    filled = {name: value for name, value in recipe.finetune.values.items() if name in task}
    last = stage_of("distill", block, {**filled, "model": recipe.model.model_dump(mode="json")}, given, sources=sources)
    proposed = []
    if last.config_json().get("budget_ms") is not None:
        written = {"export": recipe.export.values, "compress": recipe.compress.values}
        settings = {**bars, **written, "distill": last.config_json()}
        method = bare(catalog.find("propose", "halving"))
        proposed = [stage_of("propose", method, settings, given, sources=sources, per_device=True)]
        last = replace(last, upstream={**given, "proposal": "propose"})
    graph = replace(stage_of("export", recipe.export, {}, {"checkpoint": ends[0], "data": data}), name=TEACHER_GRAPH)
    asked = []
    if follows_teacher(recipe):
        method = bare(catalog.find("answers", "teacher"))
        asked = [stage_of(ANSWERS, method, {"device": last.config_json().get("device", "auto")}, given)]
    more = [stage for each in others for stage in each]
    return [*more, *proposed, last, *asked, graph], {**seen, **_by_role("teacher", ends)}


def _by_role(role: str, names: Sequence[str]) -> dict[str, str]:
    """Return stages by role: `role`, `role-2`, ..."""
    return {role if number == 1 else f"{role}-{number}": name for number, name in enumerate(names, 1)}


def _again(stage: Stage, number: int) -> Stage:
    """Return the fine-tuning or merge of one more teacher, with a seed of its own."""
    upstream = {role: f"{name}-{number}" if role == "finetune" else name for role, name in stage.upstream.items()}
    return replace(stage, name=f"{stage.name}-{number}", upstream=upstream, seed_offset=number - 1)


def _own_input(recipe: Recipe, store: Store) -> dict[str, Json] | None:
    """Return how an image student reads images, where it is not as its teacher does.

    A network by name reads them as it was pretrained, at its own size.
    """
    student = recipe.distill.values.get("student") if recipe.distill is not None else None
    text = getattr(recipe.model, "takes_texts", False)  # then the distill stage refuses it
    if text or not isinstance(student, dict) or not (student.get("input") or student.get("base")):
        return None
    written, named = student.get("input"), student.get("base")
    changes = {key: value for key, value in (written if isinstance(written, dict) else {}).items() if value is not None}
    model: dict[str, Any] = recipe.model.model_dump(mode="json")
    teacher: dict[str, Any] = _contract(recipe.model, store)
    shared = {"height", "width", "resize"} if named else model["input"].keys() - {"resize_to"}
    kept = {key: value for key, value in model["input"].items() if key in shared and value is not None}
    asked: dict[str, Any] = {"resize": teacher["resize"], **kept, **changes}
    cropped = asked["resize"] == "shorter_side" and teacher["resize_to"] is not None
    if cropped and not named and "resize_to" not in asked:
        old = max(teacher["height"], teacher["width"])  # the same part of each picture
        new = max(int(asked.get(side) or teacher[side]) for side in ("height", "width"))
        asked["resize_to"] = round(teacher["resize_to"] * new / old)
    try:
        own = type(recipe.model).model_validate(
            {**model, "base": named or model["base"], "weights": None, "input": asked}
        )
    except ValidationError as error:
        raise UsageError(f"distill.student: {refusals(error)}") from error
    found = _contract(own, store)
    return None if found == teacher else found


def _input(recipe: Recipe, weights: Mapping[str, Path], store: Store) -> dict[str, Json]:
    """Return the model's input contract, remembered in the cache: asking an unusual model loads its library."""
    if getattr(recipe.model, "takes_texts", False):
        found: dict[str, Json] = catalog.resolve(_DESCRIBE_TEXT)(recipe.model, weights["weights"])
        return found
    return _contract(recipe.model, store)


def _contract(model: BaseModel, store: Store) -> dict[str, Json]:
    def describe() -> dict[str, Json]:
        contract: dict[str, Json] = catalog.resolve(_DESCRIBE)(model).to_json()
        return contract

    described: Json = {"describe": model.model_dump(mode="json"), "needs": dict(versions(("timm", "torchvision")))}
    return store.memo(described, describe)
