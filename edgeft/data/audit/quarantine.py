"""Unreadable images: left out of train and val with a list; an error in test, where nothing may be left out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from edgeft.core.errors import DataError
from edgeft.core.stage import Json
from edgeft.data.audit.finding import MAX_ITEMS, Finding

_NAMED = 10


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image that was left out, and why."""

    path: str
    split: str
    reason: str

    def to_json(self) -> dict[str, Json]:
        """Return it as it stands in dataset.json."""
        return asdict(self)


def quarantine(failures: Mapping[int, str], paths: Sequence[str], splits: Sequence[str]) -> tuple[Quarantined, ...]:
    """List the unreadable images.

    Args:
        failures: reason by position.
        paths: of all images.
        splits: of all images.

    Raises:
        DataError: an image of the test split is unreadable.
    """
    out = tuple(Quarantined(paths[at], splits[at], reason) for at, reason in sorted(failures.items()))
    in_test = [item for item in out if item.split == "test"]
    if in_test:
        named = "".join(f"\n  {item.reason}" for item in in_test[:_NAMED])
        more = f"\n  and {len(in_test) - _NAMED} more" if len(in_test) > _NAMED else ""
        raise DataError(
            f"{len(in_test)} images of the test split cannot be read:{named}{more}",
            hint="restore the files, or remove their rows from the data: a test is never run on a part of its images",
        )
    return out


def quarantine_finding(out: Sequence[Quarantined], total: int) -> Finding:
    """Say how many images were left out."""
    if not out:
        return Finding("unreadable images", "info", f"all {total} images could be read", numbers={"images": 0})
    message = f"{len(out)} of {total} images cannot be read and were left out of train and val (first: {out[0].reason})"
    items = [item.to_json() for item in out[:MAX_ITEMS]]
    return Finding("unreadable images", "warning", message, items, {"images": len(out)})
