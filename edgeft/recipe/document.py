"""YAML text to plain values that know their line. No tags, no anchors, no duplicate keys, a size cap.

Scalars follow YAML 1.2's core schema: `no`, `on`, `12:30` and dates stay text, `1e-3` is a number.
Keys are always text.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from edgeft.core.errors import UsageError
from edgeft.core.stage import Json

MAX_BYTES = 1 << 18
"""Largest recipe (256 KiB)."""
_MAX_DEPTH = 32

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ("data", "split", "train"); list positions are ints."""


@dataclass(frozen=True, slots=True)
class Document:
    """A recipe's values and where each came from.

    Args:
        values: the mapping at the top.
        origins: for each key path, a phrase such as "recipe.yaml line 12" or "--set finetune.lr=x".
    """

    values: dict[str, Json]
    origins: Mapping[KeyPath, str]

    def origin(self, path: KeyPath) -> str:
        """Return where `path` came from, or its nearest parent that the recipe holds."""
        for end in range(len(path), -1, -1):
            if found := self.origins.get(path[:end]):
                return found
        return "the recipe"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core schema instead of 1.1's guesses."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,300}|0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
)
for _name, _pattern, _starts in _SCALARS:
    _first = ["" if start == "\0" else start for start in _starts]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse(text: str, name: str) -> Document:
    """Parse a recipe.

    Args:
        text: YAML.
        name: how the file is called in messages.

    Raises:
        UsageError: it is no YAML, too large, no mapping, or uses tags, anchors or a key twice; names the line.
    """
    _refuse_what_recipes_do_not_need(text, name)
    node = yaml.compose(text, Loader=_Loader)
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "one value"
        raise UsageError(
            f"{name}: expected a mapping such as `data: ...`, found {found}", hint="start from `edgeft init DATA`"
        )
    origins: dict[KeyPath, str] = {(): name}
    values = _mapping(node, (), name, origins)
    return Document(values, origins)


def parse_value(text: str, name: str) -> Json:
    """Parse one YAML value, as it stands after `--set key=`.

    Raises:
        UsageError: as `parse`.
    """
    _refuse_what_recipes_do_not_need(text, name)
    node = yaml.compose(text, Loader=_Loader)
    return None if node is None else _value(node, (), name, {})


def _refuse_what_recipes_do_not_need(text: str, name: str) -> None:
    """Check on the flat stream of events, before anything is built from it."""
    if len(text.encode()) > MAX_BYTES:
        raise UsageError(f"{name}: {len(text.encode())} bytes, a recipe has at most {MAX_BYTES}")
    depth = documents = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            place = f"{name} {_line(event.start_mark)}"
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            documents += isinstance(event, yaml.DocumentStartEvent)
            if isinstance(event, yaml.NodeEvent) and event.anchor:
                raise UsageError(f"{place}: anchors (&, *) are not used in recipes", hint="write the value out")
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
                raise UsageError(f"{place}: tags such as {event.tag} are not used in recipes", hint="remove the tag")
            if depth > _MAX_DEPTH:
                raise UsageError(f"{place}: nested more than {_MAX_DEPTH} deep")
            if documents > 1:
                raise UsageError(f"{place}: a second document (---)", hint="a recipe is one document")
    except yaml.YAMLError as error:
        raise UsageError(f"{_place(error, name)}: not YAML: {_problem(error)}", hint=_yaml_hint(text, error)) from error


def _line(mark: Any) -> str:  # noqa: ANN401 - PyYAML's marks have two types and may be missing
    return f"line {mark.line + 1}" if mark else "line ?"


def _place(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{name} {_line(mark)}" if mark else name


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)


def _yaml_hint(text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    near = lines[max(0, mark.line - 1) : mark.line + 1] if mark else []
    if any("\t" in line for line in near):
        return "indent with spaces, not tabs"
    return "look at that line's indentation, colons and quotes"


def _value(node: yaml.Node, path: KeyPath, name: str, origins: dict[KeyPath, str]) -> Json:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, name, origins)
    if isinstance(node, yaml.SequenceNode):
        items: list[Json] = []
        for index, item in enumerate(node.value):
            origins[(*path, index)] = f"{name} {_line(item.start_mark)}"
            items.append(_value(item, (*path, index), name, origins))
        return items
    return _scalar(str(node.tag).rpartition(":")[2], str(node.value))


def _mapping(node: yaml.MappingNode, path: KeyPath, name: str, origins: dict[KeyPath, str]) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for key_node, value_node in node.value:
        place = f"{name} {_line(key_node.start_mark)}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UsageError(f"{place}: a key must be a word, found a list or mapping")
        key = str(key_node.value)
        if key in values:
            raise UsageError(f"{place}: {key!r} stands twice, first in {origins[*path, key]}", hint="remove one")
        origins[*path, key] = place
        values[key] = _value(value_node, (*path, key), name, origins)
    return values


def _scalar(tag: str, text: str) -> Json:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if tag == "float" and math.isfinite(number := float(text)):
        return number
    return text
