"""The recipe's JSON Schema, with every method's own keys: for editors, and for `edgeft schema`."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from edgeft import catalog
from edgeft.core.stage import Method
from edgeft.recipe.load import (
    DEFAULT_METHODS,
    ENGINE_BLOCKS,
    FILLED,
    FIXED_METHODS,
    KEYS,
    MODEL_CONFIG,
    OPTIONAL_METHODS,
    Head,
)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of recipe.yaml."""
    definitions: dict[str, Any] = {}
    properties = dict(_of(Head, "head", definitions)["properties"])
    properties["model"] = _of(catalog.resolve(MODEL_CONFIG), "model", definitions)
    for kind in (*DEFAULT_METHODS, *OPTIONAL_METHODS):
        properties[kind] = _methods(kind, definitions)
    for name, config in ENGINE_BLOCKS.items():
        properties[name] = _of(config, name, definitions)
    return {
        "$schema": _DIALECT,
        "title": "edgeft recipe",
        "type": "object",
        "properties": {name: properties[name] for name in KEYS},
        "required": ["data", "model"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _methods(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a block: that of its method, or one branch for each method."""
    branches = [_method(method, definitions) for method in catalog.methods(kind)]
    return branches[0] if len(branches) == 1 else {"oneOf": branches}


def _method(method: Method, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _of(catalog.resolve(method.config), f"{method.kind}.{method.name}", definitions)
    filled = FILLED.get(method.kind, frozenset())
    schema["properties"] = {name: value for name, value in schema["properties"].items() if name not in filled}
    required = [name for name in schema.pop("required", []) if name not in filled]
    if method.kind not in FIXED_METHODS:
        default = {**DEFAULT_METHODS, **OPTIONAL_METHODS}[method.kind] == method.name
        chooser = {"const": method.name, "description": f"The {method.kind} method."}
        schema["properties"] = {"method": chooser, **schema["properties"]}
        required = required if default else ["method", *required]
    return {**schema, "required": required} if required else schema


def _of(config: type[BaseModel], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of `config`; its nested classes go to `definitions` as "prefix.Class"."""
    template = DEFAULT_REF_TEMPLATE.replace("{model}", f"{prefix}.{{model}}")
    schema = config.model_json_schema(ref_template=template)
    for name, nested in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = nested
    return schema
