"""The stages of a recipe in their fixed order: each with its method, its full config and where its inputs come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeft import catalog
from edgeft.core.errors import DataError, UsageError
from edgeft.core.keys import versions
from edgeft.core.stage import Json, Method
from edgeft.core.store import Store
from edgeft.recipe.model import Block, Recipe
from edgeft.recipe.paths import locate
from edgeft.recipe.smoke import TRIAL_MARGIN_PP

_DESCRIBE = "edgeft.models.sources:describe"
_DESCRIBE_TEXT, _TOKENIZER = "edgeft.models.text_source:describe", "tokenizer.json"
_SNAPSHOT = "edgeft.models.hub:snapshot"
_HUB = "hub"
_CHECKPOINT = "model.json"
TEACHER_GRAPH = "teacher_graph"
"""The stage that exports what a student was taught by, to be timed beside it."""
BUNDLE_RUNTIME = "onnxruntime"
"""What `edgeft.runtime` runs a bundle with."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a recipe.

    Args:
        name: "data", "finetune", ...; also the name of its recipe block where it has one.
        method: what runs.
        config: its full config.
        upstream: by role, the stage whose output folder it reads.
        sources: by role, the user's file or folder that it reads.
        per_device: whether the result depends on this device.
        filled: config fields that came from other blocks of the recipe.
        seed_offset: added to the run's seed: what is done several times is done otherwise each time.
    """

    name: str
    method: Method
    config: BaseModel
    upstream: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)
    per_device: bool = False
    filled: frozenset[str] = frozenset()
    seed_offset: int = 0

    def config_json(self) -> dict[str, Json]:
        """Return the config as JSON values, defaults filled in."""
        return self.config.model_dump(mode="json")


def stages(recipe: Recipe, store: Store) -> tuple[Stage, ...]:
    """Return the recipe's stages in running order.

    Raises:
        DataError: a file or folder that the recipe names is missing.
        DeviceError: a package that it names is not installed.
        UsageError: a method or exporter is unknown, or its config is refused.
    """
    source, images = _data_sources(recipe)
    weights = _weights(recipe)
    text = bool(getattr(recipe.model, "takes_texts", False))
    files = {"tokenizer": weights["weights"] / _TOKENIZER} if text else {"images": images}
    target = recipe.lower.targets[0]
    accuracy, latency = recipe.verify.accuracy, recipe.verify.latency
    bars: dict[str, Json] = {
        "metric": accuracy.metric,
        "max_drop_pp": accuracy.max_drop_pp,
        "target": target,
        "threads": latency.threads,
    }
    searched = bool(recipe.compress.values.get("search"))
    untouched = {name: value for name, value in bars.items() if name != "threads"}  # of interest to timings alone
    model = recipe.model.model_dump(mode="json")
    choose, verify = catalog.find("choose", "fastest"), catalog.find("verify", "parity")
    lower = catalog.find("lower", target)
    exporter = catalog.exporter(target)
    if exporter.cross or exporter.fingerprint().get("runtime") != BUNDLE_RUNTIME:
        raise UsageError(
            f"lower.targets: {target}: a bundle runs in {BUNDLE_RUNTIME}, so far in nothing else",
            hint=f"build with lower.targets: [onnx], then: edgeft quantize MODEL.onnx --calib DATA --target {target}",
        )
    read = _stage(
        "data",
        recipe.data,
        {"input": _input(recipe, weights, store)},
        {},
        sources={"source": source, **files, **_unlabelled(recipe)},
    )
    taught = _own_input(recipe, store)
    teacher_data = [] if taught is None else [replace(read, name="teacher_data")]
    if taught is not None:
        read = _stage("data", recipe.data, {"input": taught}, {}, sources=read.sources)
    seen = "teacher_data" if teacher_data else "data"
    tuned = _finetuned(recipe, {"model": model}, seen, weights)
    checkpoint = tuned[-1].name
    distill: list[Stage] = []
    teachers: dict[str, str] = {}
    if recipe.distill is not None:
        distill, teachers = _distilled(recipe, recipe.distill, tuned, bars, weights)
        checkpoint = "distill"
    trial: dict[str, Json] = {"max_drop_pp": TRIAL_MARGIN_PP} if recipe.smoke else {}
    untimed: dict[str, Json] = {"rounds": 0} if recipe.smoke else {}  # the same choice on a busy machine
    return (
        read,
        *teacher_data,
        *tuned,
        *distill,
        _stage("export", recipe.export, {}, {"checkpoint": checkpoint, "data": "data"}),
        _stage(
            "compress",
            recipe.compress,
            {**(bars if searched else untouched), **trial},
            {"graph": "export", "data": "data"},
            per_device=searched,
        ),
        _stage(
            "choose",
            _bare(choose),
            {**bars, **trial, **untimed},
            {"compress": "compress", "data": "data"},
            per_device=True,
        ),
        _stage("lower", _bare(lower), bars, {"choose": "choose", "compress": "compress"}),
        _stage("decide", recipe.decide, {}, {"data": "data", "compress": "compress", "lower": "lower"}),
        _stage(
            "verify",
            _bare(verify),
            {**bars, **{name: recipe.decide.values.get(name) for name in ("max_escape", "max_overkill")}},
            {
                "data": "data",
                "checkpoint": checkpoint,
                "graph": "export",
                "compress": "compress",
                "lower": "lower",
                "decide": "decide",
                **teachers,
            },
            sources={} if text else {"images": images},
        ),
    )


def _bare(method: Method) -> Block:
    return Block(method=method, values={})


def _stage(
    name: str,
    block: Block,
    filled: Mapping[str, Json],
    upstream: Mapping[str, str],
    *,
    sources: Mapping[str, Path] | None = None,
    per_device: bool = False,
) -> Stage:
    """Return a stage; its config holds what the recipe wrote and, where it has such fields, the engine's values."""
    method = block.method
    config: Any = catalog.resolve(method.config)
    known = {key: value for key, value in filled.items() if key in config.model_fields}
    try:
        made = config.model_validate({**known, **block.values})
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UsageError(f"{name}: {what}") from error
    target = getattr(made, "target", None)
    if isinstance(target, str) and (foreign := catalog.exporter_distribution(target)):
        method = replace(method, needs=(*method.needs, foreign))
    return Stage(
        name,
        method,
        made,
        dict(upstream),
        dict(sources or {}),
        per_device,
        frozenset(known.keys() - block.values.keys()),
    )


def _data_sources(recipe: Recipe) -> tuple[Path, Path]:
    values = recipe.data.values
    source = locate(str(values["source"]), recipe.folder, key="data.source")
    if not source.exists():
        raise DataError(
            f"data.source: {source} does not exist",
            hint=f"correct data.source in {recipe.path}; paths are relative to {recipe.folder}",
        )
    if not (written := values.get("images")):
        return source, source if source.is_dir() else source.parent
    images = locate(str(written), recipe.folder, key="data.images")
    if not images.is_dir():
        raise DataError(f"data.images: {images} is not a folder", hint=f"correct data.images in {recipe.path}")
    return source, images


def _weights(recipe: Recipe) -> dict[str, Path]:
    written, text = getattr(recipe.model, "weights", None), getattr(recipe.model, "takes_texts", False)
    if text and written == _HUB:
        return {"weights": catalog.resolve(_SNAPSHOT)(getattr(recipe.model, "architecture", ""))}
    if written is None or written == _HUB:
        return {}
    path = locate(str(written), recipe.folder, key="model.weights")
    if text:
        if not path.is_dir():
            raise DataError(
                f"model.weights: {path} is not a folder",
                hint=f"correct model.weights in {recipe.path}: a folder that transformers' save_pretrained wrote",
            )
        return {"weights": path}
    if not path.is_file() and not (path / _CHECKPOINT).is_file():
        raise DataError(
            f"model.weights: {path} is neither a file nor a checkpoint's folder",
            hint=f"correct model.weights in {recipe.path}; null trains from random weights",
        )
    return {"weights": path}


def _finetuned(recipe: Recipe, filled: Mapping[str, Json], data: str, weights: Mapping[str, Path]) -> list[Stage]:
    """Return the fine-tuning of `data`, and the merge where the method has one."""
    tuned = _stage("finetune", recipe.finetune, filled, {"data": data}, sources={**weights, **_augmenting(recipe)})
    merge = [
        _stage("merge", _bare(method), filled, {"data": data, "finetune": "finetune"}, sources=weights)
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
    model, sources = recipe.model.model_dump(mode="json"), _student(block, recipe, weights)
    last = _stage("distill", block, {"model": model}, given, sources=sources)
    proposed = []
    if last.config_json().get("budget_ms") is not None:
        asked = {**bars, "distill": last.config_json()}
        method = _bare(catalog.find("propose", "halving"))
        proposed = [_stage("propose", method, asked, given, sources=sources, per_device=True)]
        last = replace(last, upstream={**given, "proposal": "propose"})
    graph = _stage("export", recipe.export, {}, {"checkpoint": ends[0], "data": data})
    more = [stage for each in others for stage in each]
    return [*more, *proposed, last, replace(graph, name=TEACHER_GRAPH)], {**seen, **_by_role("teacher", ends)}


def _by_role(role: str, names: Sequence[str]) -> dict[str, str]:
    """Return stages by role: `role`, `role-2`, ..."""
    return {role if number == 1 else f"{role}-{number}": name for number, name in enumerate(names, 1)}


def _again(stage: Stage, number: int) -> Stage:
    """Return the fine-tuning or merge of one more teacher, with a seed of its own."""
    upstream = {role: f"{name}-{number}" if role == "finetune" else name for role, name in stage.upstream.items()}
    return replace(stage, name=f"{stage.name}-{number}", upstream=upstream, seed_offset=number - 1)


def _own_input(recipe: Recipe, store: Store) -> dict[str, Json] | None:
    """Return how an image student reads images, where it is not as its teacher does."""
    student = recipe.distill.values.get("student") if recipe.distill is not None else None
    changes = student.get("input") if isinstance(student, dict) else None
    text = getattr(recipe.model, "takes_texts", False)  # then the distill stage refuses it
    if text or not isinstance(student, dict) or not isinstance(changes, dict) or not changes:
        return None
    model: dict[str, Any] = recipe.model.model_dump(mode="json")
    changed = {name: value for name, value in model["input"].items() if value is not None}
    named = {"base": student.get("base") or model["base"], "weights": None}
    return _contract(type(recipe.model).model_validate({**model, **named, "input": {**changed, **changes}}), store)


def _unlabelled(recipe: Recipe) -> dict[str, Path]:
    """Return where rows without labels are, where the recipe names them."""
    written = recipe.data.values.get("unlabelled")
    if written is None:
        return {}
    if recipe.distill is None:
        raise UsageError(
            "data.unlabelled: only a student learns from rows without labels, and the recipe has no distill block",
            hint="add one, e.g. distill: {prune: 0.3}, or remove data.unlabelled",
        )
    path = locate(str(written), recipe.folder, key="data.unlabelled")
    if not path.exists():
        raise DataError(f"data.unlabelled: {path} does not exist", hint=f"correct it in {recipe.path}")
    return {"unlabelled": path}


def _student(block: Block, recipe: Recipe, weights: Mapping[str, Path]) -> dict[str, Path]:
    """Return the student's own weights, where the recipe names them, and a text teacher's tokenizer beside them."""
    student = block.values.get("student")
    written = student.get("weights") if isinstance(student, dict) else None
    if written in {None, _HUB}:
        return {}
    path = locate(str(written), recipe.folder, key="distill.student.weights")
    text = bool(getattr(recipe.model, "takes_texts", False))
    if not (path.is_dir() if text else path.is_file()):
        raise DataError(
            f"distill.student.weights: {path} is no {'folder' if text else 'file'}",
            hint=f"correct it in {recipe.path}" + ("" if text else "; null trains from random weights"),
        )
    return {"student": path, **({"tokenizer": weights["weights"] / _TOKENIZER} if text else {})}


def _augmenting(recipe: Recipe) -> dict[str, Path]:
    """Return what the augmentation of texts reads, by role."""
    augment = recipe.finetune.values.get("augment_text")
    if not isinstance(augment, dict):
        return {}
    named = {
        key: ("synonyms", augment[key]) for key in ("table", "wordnet") if augment.get("synonyms") and augment.get(key)
    }
    models = augment.get("translators")
    if augment.get("back_translate") and isinstance(models, list):
        named |= {f"translators: {name}": (role, name) for role, name in zip(("there", "back"), models, strict=False)}
    found = {}
    for key, (role, name) in named.items():
        path = locate(str(name), recipe.folder, key=f"finetune.augment_text.{key}")
        if not path.exists():
            hint = "apt-get install wordnet-base, then wordnet: /usr/share/wordnet" if key == "wordnet" else None
            raise DataError(f"finetune.augment_text.{key}: {path} does not exist", hint=hint)
        found[role] = path
    return found


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
