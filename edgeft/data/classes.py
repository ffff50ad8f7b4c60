"""The class order, frozen once: every later stage reads it from the dataset."""

import difflib
from collections import Counter
from collections.abc import Sequence

from edgeft.core.errors import DataError
from edgeft.data.sources.rows import SourceRow


def freeze_classes(rows: Sequence[SourceRow], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes in their order: `wanted`, or the labels in use, sorted.

    Args:
        rows: every labelled row.
        wanted: the recipe's `data.classes`.

    Raises:
        DataError: there are fewer than two classes, a label is not in `wanted`, or a class of `wanted` has no row.
    """
    counts = Counter(row.label for row in rows)
    if wanted is not None:
        stranger = next((row for row in rows if row.label not in wanted), None)
        if stranger is not None:
            raise DataError(
                f"{stranger.where}: label {stranger.label!r} is not one of data.classes ({', '.join(wanted)})",
                hint="add it to data.classes, or map it with an expression in data.columns.label",
            )
        for name in wanted:
            if not counts[name]:
                raise DataError(f"the class {name!r} of data.classes has no row", hint="remove it or add some")
    classes = wanted or tuple(sorted(counts))
    if len(classes) < 2:  # noqa: PLR2004 - a decision needs two
        raise DataError(
            f"all {len(rows)} rows have the label {classes[0] if classes else None!r}, expected at least two classes",
            hint="check data.columns.label",
        )
    return classes


def check_ok_class(ok_class: str | None, classes: Sequence[str]) -> None:
    """Raise DataError where `ok_class` is given and is none of `classes`."""
    if ok_class is None or ok_class in classes:
        return
    nearest = difflib.get_close_matches(ok_class, classes, n=1)
    raise DataError(
        f"data.ok_class {ok_class!r} is not a class; the classes are {', '.join(classes)}",
        hint=f"did you mean {nearest[0]}?" if nearest else None,
    )
