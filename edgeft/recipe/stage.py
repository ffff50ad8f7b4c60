"""One stage of a recipe: its method, its full config, and where its inputs come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeft import catalog
from edgeft.config import refusals
from edgeft.core.errors import UsageError
from edgeft.core.stage import Json, Method
from edgeft.recipe.model import Block


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


def bare(method: Method) -> Block:
    """Return `method` as a block in which nothing was written."""
    return Block(method=method, values={})


def stage_of(
    name: str,
    block: Block,
    filled: Mapping[str, Json],
    upstream: Mapping[str, str],
    *,
    sources: Mapping[str, Path] | None = None,
    per_device: bool = False,
) -> Stage:
    """Return a stage; its config holds what the recipe wrote and, where it has such fields, the engine's values.

    Args:
        name: of the stage.
        block: the method, and what the recipe wrote.
        filled: the engine's values; those that the config has no field for are left out.
        upstream: by role, the stage that it reads.
        sources: by role, the user's file or folder that it reads.
        per_device: whether the result depends on this device.

    Raises:
        UsageError: the config is refused.
    """
    method = block.method
    config: Any = catalog.resolve(method.config)
    known = {key: value for key, value in filled.items() if key in config.model_fields}
    try:
        made = config.model_validate({**known, **block.values})
    except ValidationError as error:
        raise UsageError(f"{name}: {refusals(error)}") from error
    target = getattr(made, "target", None)
    if isinstance(target, str):
        method = replace(method, needs=(*method.needs, *catalog.exporter_needs(target)))
    return Stage(
        name,
        method,
        made,
        dict(upstream),
        dict(sources or {}),
        per_device,
        frozenset(known.keys() - block.values.keys()),
    )
