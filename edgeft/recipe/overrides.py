"""`--set a.b=c`: one value put over the recipe's."""

import copy
from collections.abc import Sequence

from edgeft.core.errors import UsageError
from edgeft.core.stage import Json
from edgeft.recipe.document import Document, KeyPath, parse_value


def apply(document: Document, overrides: Sequence[str]) -> Document:
    """Return `document` with each `a.b=value` put over it, in order; missing mappings are made.

    The value is YAML, so `--set finetune.lr=1e-3` is a number and `--set model.weights=null` is null.

    Raises:
        UsageError: no `=`, an empty key, or a key below something that is not a mapping.
    """
    values = copy.deepcopy(document.values)
    origins = dict(document.origins)
    for text in overrides:
        key, equals, value = text.partition("=")
        names = [name.strip() for name in key.split(".")]
        origin = f"--set {text}"
        if not equals or not all(names):
            raise UsageError(f"{origin}: expected KEY=VALUE", hint="for example --set finetune.epochs=3")
        path = _put(values, names, parse_value(value, origin), origin)
        for known in [known for known in origins if known[: len(path)] == path]:
            del origins[known]
        origins[path] = origin
    return Document(values, origins)


def _put(values: dict[str, Json], names: list[str], value: Json, origin: str) -> KeyPath:
    here: Json = values
    path: list[str | int] = []
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        if isinstance(here, dict):
            path.append(name)
            if last:
                here[name] = value
            else:
                if here.get(name) is None:
                    here[name] = {}
                here = here[name]
        elif isinstance(here, list) and name.isdigit() and int(name) < len(here):
            path.append(int(name))
            if last:
                here[int(name)] = value
            else:
                here = here[int(name)]
        else:
            where, found = ".".join(names[:depth]), type(here).__name__
            hint = f"set {where} itself, for example --set '{where}={{{name}: ...}}'"
            raise UsageError(f"{origin}: {where} holds a {found}, so it has no key {name!r}", hint=hint)
    return tuple(path)
