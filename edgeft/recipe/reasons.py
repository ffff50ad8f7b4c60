"""Why a stage runs, in one phrase, from what its key was made of last time and is made of now."""

from collections.abc import Mapping

from edgeft.core.keys import Change, Components, changes
from edgeft.core.stage import Json
from edgeft.recipe.stage import Stage

_SHOWN = 3
_FILLED_BY = {"answers": "distill", "distill": "finetune"}
"""Kinds of stages whose config takes fields of the same names from another block."""
_FILLED_FROM = {
    "compress": "compress",
    "distill": "distill",
    "export": "export",
    "input": "model.input",
    "max_escape": "decide.max_escape",
    "max_overkill": "decide.max_overkill",
    "max_drop_from_teacher_pp": "verify.accuracy.max_drop_from_teacher_pp",
    "max_drop_pp": "verify.accuracy.max_drop_pp",
    "metric": "verify.accuracy.metric",
    "model": "model",
    "rounds": "verify.latency.rounds",
    "target": "lower.targets",
    "threads": "verify.latency.threads",
}
"""Config fields that the engine fills in: the recipe key that a user would change."""


def reason(stage: Stage, last: Components | None, now: Components) -> str | None:
    """Return why `now` differs from `last`, or None where it does not.

    Args:
        stage: the stage.
        last: components of its latest key in this cache; None where it never ran.
        now: components of its key; `inputs` may be left out where upstream has not run yet.
    """
    if last is None:
        return "first run"
    if last.get("method") != now["method"]:
        old, new = (str(parts.get("method", "")).partition("/")[2] for parts in (last, now))
        return f"runs because {stage.name}.method changed {old} -> {new}"
    found = [change for part in now for change in changes({part: last.get(part)}, {part: now[part]})]
    phrases = list(dict.fromkeys(_phrase(stage, change) for change in found))
    if not phrases:
        return None
    more = f" and {len(phrases) - _SHOWN} more" if len(phrases) > _SHOWN else ""
    return f"runs because {', '.join(phrases[:_SHOWN])}{more}"


def _phrase(stage: Stage, change: Change) -> str:
    part, *rest = change.path
    was = f"{_shown(change.old)} -> {_shown(change.new)}"
    name = rest[-1] if rest else part
    appeared = "is new" if change.added else "is gone" if change.removed else None
    if part == "config":
        return f"{_recipe_key(stage, rest)} {appeared or f'changed {was}'}"
    if part == "inputs":
        changed = f"upstream {stage.upstream[name]} changed" if name in stage.upstream else f"{name} changed on disk"
        return f"{name} {appeared}" if appeared else changed
    named = {
        "version": f"edgeft's {stage.method.kind} method {stage.method.name} changed (version {was})",
        "device": f"the device changed ({'.'.join(rest)})",
        "scheme": "edgeft's cache format changed",
    }
    return named.get(part, f"{name} changed {was}")


def _recipe_key(stage: Stage, rest: list[str]) -> str:
    """Return the recipe's key for a config field."""
    first = None
    if rest[0] in stage.filled:
        block = _FILLED_BY.get(stage.method.kind) if rest[0] != "model" else None
        first = f"{block}.{rest[0]}" if block else _FILLED_FROM.get(rest[0])
    return ".".join([first or f"{stage.name}.{rest[0]}", *rest[1:]])


def _shown(value: Json) -> str:
    if isinstance(value, list | Mapping):
        text = str(value)
        return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - fits a table cell
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
