"""One thing that the audit found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from edgeft.core.stage import Json

Evidence: TypeAlias = "bool | int | float | str | Sequence[Evidence] | Mapping[str, Evidence] | None"
"""What a finding rests on; read-only, so that lists and dictionaries of anything simpler fit."""

Severity: TypeAlias = Literal["info", "warning", "error"]
MAX_ITEMS = 50
"""Most items that a finding names; its numbers hold the full count."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the audit.

    Args:
        check: which question it answers, e.g. "near duplicates".
        severity: "warning" where the user should act, "error" where results cannot be trusted until they do.
        message: one or two sentences with the numbers in them.
        items: files, pairs or classes that it is about; at most `MAX_ITEMS`.
        numbers: the same as values.
    """

    check: str
    severity: Severity
    message: str
    items: Sequence[Evidence] = ()
    numbers: Mapping[str, Evidence] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the finding as it stands in dataset.json."""
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "items": [_json(item) for item in self.items[:MAX_ITEMS]],
            "numbers": _json(self.numbers),
        }


def _json(value: Evidence) -> Json:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json(item) for item in value]
    return cast("Json", value)
