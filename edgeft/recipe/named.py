"""The files and folders that a recipe names, found before anything runs: data, weights, a student's, synonyms."""

from collections.abc import Mapping
from pathlib import Path

from edgeft import catalog
from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json
from edgeft.recipe.model import Block, Recipe
from edgeft.recipe.paths import locate

TOKENIZER = "tokenizer.json"
_SNAPSHOT = "edgeft.models.hub:snapshot"
HUB = "hub"
_CHECKPOINT = "model.json"


def data_sources(recipe: Recipe) -> tuple[Path, Path]:
    """Return the table or folder of rows, and the root of raw images.

    Raises:
        DataError: one is missing.
    """
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


def weights_of(recipe: Recipe) -> dict[str, Path]:
    """Return the pretrained weights by role; nothing where the library brings them, or none are wanted.

    Raises:
        DataError: what is named is missing, or no such thing.
    """
    written, text = getattr(recipe.model, "weights", None), getattr(recipe.model, "takes_texts", False)
    if text and written == HUB:
        return {"weights": catalog.resolve(_SNAPSHOT)(getattr(recipe.model, "architecture", ""))}
    if written is None or written == HUB:
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


def unlabelled(recipe: Recipe) -> dict[str, Path]:
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


def students_of(block: Block, recipe: Recipe, weights: Mapping[str, Path]) -> dict[str, Path]:
    """Return students' own weights by role, where the recipe names them, and a text teacher's tokenizer beside them.

    The student's role is "student", that of the third candidate of `student: auto` "student-3".
    """
    candidates = block.values.get("candidates")
    offered = [each.get("student") if isinstance(each, dict) else None for each in _listed(candidates)]
    named = {"student": ("student", block.values.get("student"))}
    named |= {f"student-{number}": (f"candidates.{number - 1}.student", each) for number, each in enumerate(offered, 1)}
    text = bool(getattr(recipe.model, "takes_texts", False))
    found = {}
    for role, (key, student) in named.items():
        if not isinstance(student, dict):
            continue
        written = student.get("weights")
        if written is None or (written == HUB and not text):
            continue
        if written == HUB:
            path = catalog.resolve(_SNAPSHOT)(str(student["base"]).partition("/")[2])
        else:
            path = locate(str(written), recipe.folder, key=f"distill.{key}.weights")
        if not (path.is_dir() if text else path.is_file()):
            raise DataError(
                f"distill.{key}.weights: {path} is no {'folder' if text else 'file'}",
                hint=f"correct it in {recipe.path}" + ("" if text else "; null trains from random weights"),
            )
        found[role] = path
    return {**found, **({"tokenizer": weights["weights"] / TOKENIZER} if text and found else {})}


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def augmenting(recipe: Recipe) -> dict[str, Path]:
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
