"""From pydantic's findings to messages that name the key, the line, what was found and what was expected."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from edgeft.core.errors import UsageError
from edgeft.core.stage import Json
from edgeft.recipe.document import Document, KeyPath

_SHOWN = 8
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "model": "a mapping of keys",
    "path": "a path",
}
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}

C = TypeVar("C", bound=BaseModel)


def check(
    config: type[C], values: Json, *, at: KeyPath, document: Document, filled: Mapping[str, Json] | None = None
) -> C:
    """Return `values` as `config`.

    Args:
        config: the pydantic class.
        values: what the recipe holds at `at`; None is an empty block.
        at: the block's key path.
        document: where values came from.
        filled: fields that the engine fills in, with what is known of them now; a recipe must not write them.

    Raises:
        UsageError: names every finding with its line; the hint is the first finding's.
    """
    written = mapping(values, at=at, document=document)
    engine = dict(filled or {})
    findings: list[tuple[str, str | None]] = [
        (f"{_where(document, (*at, name))} is filled in by edgeft and cannot be written", "remove it")
        for name in engine
        if name in written
    ]
    known = {name: value for name, value in engine.items() if value is not None}
    try:
        checked = config.model_validate({**written, **known})
    except ValidationError as error:
        findings += [_finding(dict(item), config, written, at, document) for item in error.errors()]
        raise _usage_error(findings) from None
    if findings:
        raise _usage_error(findings)
    return checked


def unknown_keys(values: Mapping[str, Json], known: Iterable[str], *, at: KeyPath, document: Document) -> None:
    """Refuse keys of `values` that are not `known`.

    Raises:
        UsageError: names them with line and nearest known key.
    """
    names = list(known)
    findings = [_unknown(key, names, (*at, key), document) for key in values if key not in names]
    if findings:
        raise _usage_error(findings)


def mapping(values: Json, *, at: KeyPath, document: Document) -> dict[str, Json]:
    """Return `values`, which must be a mapping or nothing.

    Raises:
        UsageError: it is something else.
    """
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{_where(document, at)}: expected a mapping of keys, found {_shown(values)}")
    return values


def _usage_error(findings: Sequence[tuple[str, str | None]]) -> UsageError:
    lines = [text for text, _ in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"and {len(findings) - _SHOWN} more")
    return UsageError("\n".join(lines), hint=findings[0][1])


def _finding(
    item: dict[str, Any], config: type[BaseModel], values: Json, at: KeyPath, document: Document
) -> tuple[str, str | None]:
    path = tuple(_real(item["loc"], values))
    kind = str(item["type"])
    where = _where(document, (*at, *path))
    if kind == "extra_forbidden":
        return _unknown(str(item["loc"][-1]), sorted(_fields(config, item["loc"][:-1])), (*at, *path), document)
    if kind == "missing":
        return f"{document.origin((*at, *path[:-1]))}: {_dotted((*at, *path))} is missing", None
    found = _shown(item["input"])
    if kind == "literal_error":
        expected = str(item["ctx"]["expected"])
        near = difflib.get_close_matches(
            str(item["input"]), expected.replace("'", "").replace(" or ", ", ").split(", "), 1
        )
        return f"{where}: expected {expected}, found {found}", f"did you mean {near[0]}?" if near else None
    if kind == "value_error":
        return f"{where}: {item['ctx']['error']}", None
    base = kind.partition("_")[0]
    if base in _EXPECTED and kind.partition("_")[2] in {"type", "parsing", "from_float", "unicode"}:
        return f"{where}: expected {_EXPECTED[base]}, found {found}", None
    return f"{where}: {str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, found {found}", None


def _unknown(key: str, known: list[str], path: KeyPath, document: Document) -> tuple[str, str]:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    block = _dotted(path[:-1]) or "a recipe"
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"{block} knows: {', '.join(sorted(known))}"
    return f"{document.origin(path)}: unknown key {_dotted(path)}", hint


def _real(location: Iterable[str | int], values: Json) -> Iterator[str | int]:
    """Drop the parts of a pydantic location that name a union's branch and not a key of the recipe."""
    steps = list(location)
    here: Json = values
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if isinstance(here, dict) and (step in here or last):
            yield step
            here = here.get(str(step))
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            yield step
            here = here[step]


def _fields(config: object, location: Iterable[str | int]) -> set[str]:
    """Return the field names of every pydantic class that may stand at `location` below `config`."""
    classes = set(_classes(config))
    for step in location:
        named = [
            item.model_fields[step].annotation
            for item in classes
            if isinstance(step, str) and step in item.model_fields
        ]
        below = {found for annotation in named for found in _classes(annotation)}
        classes = below or {item for item in classes if item.__name__ == step} or classes
    return {name for item in classes for name in item.model_fields}


def _classes(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _where(document: Document, path: KeyPath) -> str:
    return f"{document.origin(path)}: {_dotted(path)}"


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({_NAMES.get(type(value), type(value).__name__)})"  # noqa: PLR2004 - fits a line
