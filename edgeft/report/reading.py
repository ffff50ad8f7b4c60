"""Reads a run record without trusting its shape: what is missing or of the wrong type is None or empty, never an error.

A record may come from a run that stopped early, from `--no-latency`, or from an older edgeft. Sections ask a `View` for
what they show and say so where it is not there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeft.core.stage import Json

FP32 = "fp32"
"""Name of the float candidate in every record."""
COMPARE = "compare"
"""`kind` of the record that `edgeft compare` writes."""
QUANTIZE = "quantize"
"""`kind` of the record that `edgeft quantize` writes; a build's record has none."""


def finite(value: object) -> float | None:
    """Return `value` as a float, or None where it is not a finite number (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True, slots=True)
class View:
    """One JSON object of the record."""

    data: Mapping[str, Json]

    def __bool__(self) -> bool:
        return bool(self.data)

    def at(self, *path: str) -> "View":
        """Return the object at `path`, empty where there is none."""
        here: Json | Mapping[str, Json] = self.data
        for key in path:
            here = here.get(key) if isinstance(here, Mapping) else None
        return View(here if isinstance(here, Mapping) else {})

    def text(self, key: str) -> str:
        """Return the value as text; "" where it is missing or null."""
        value = self.data.get(key)
        return "" if value is None or isinstance(value, dict | list) else str(value)

    def number(self, key: str) -> float | None:
        """Return the finite number at `key`."""
        return finite(self.data.get(key))

    def flag(self, key: str) -> bool | None:
        """Return the boolean at `key`."""
        value = self.data.get(key)
        return value if isinstance(value, bool) else None

    def pair(self, key: str) -> tuple[float, float] | None:
        """Return the interval at `key`: two finite numbers."""
        numbers = self.numbers(key)
        return (numbers[0], numbers[1]) if len(numbers) == len(self.items(key)) == 2 else None  # noqa: PLR2004 - a pair

    def items(self, key: str) -> list[Json]:
        """Return the list at `key`."""
        value = self.data.get(key)
        return list(value) if isinstance(value, list | tuple) else []

    def numbers(self, key: str) -> list[float]:
        """Return the finite numbers of the list at `key`."""
        return [number for item in self.items(key) if (number := finite(item)) is not None]

    def views(self, key: str) -> list["View"]:
        """Return the objects of the list at `key`."""
        return [View(item) for item in self.items(key) if isinstance(item, Mapping)]

    def names(self, key: str) -> list[str]:
        """Return the list at `key` as texts."""
        return [str(item) for item in self.items(key)]

    def rows(self, key: str) -> list[list[float]]:
        """Return the list of number lists at `key`."""
        return [
            [n for cell in row if (n := finite(cell)) is not None] for row in self.items(key) if isinstance(row, list)
        ]


def chosen(record: View) -> str:
    """Return the name of the candidate that ships; "" where the record holds no choice."""
    named = record.at("choice").text("chosen")
    others = [name for name in record.at("verify", "metrics").data if name != FP32]
    return named or (others[0] if others else "")


def bundle_name(record: View) -> str:
    """Return the artifact's name."""
    return record.at("recipe", "bundle").text("name") or record.text("name") or "unnamed"


def is_quantize(record: View) -> bool:
    """Return whether `edgeft quantize` made the record, from a model that was there already."""
    return record.text("kind") == QUANTIZE


def is_compare(record: View) -> bool:
    """Return whether `edgeft compare` made the record: gates, and no artifact."""
    return record.text("kind") == COMPARE


def judged_on(record: View) -> str:
    """Return the data that the candidates were compared on, in words."""
    if not is_quantize(record):
        return "the validation split"
    found = record.at("evaluation")
    return f"{found.text('source') or 'the data'}{'' if found.flag('held_out') else ', the calibration data'}"


def takes_texts(record: View) -> bool:
    """Return whether the record is of a model that decides texts."""
    return record.at("data").text("task") == "text_classification"


def rows_word(record: View) -> str:
    """Return what the record's rows are: "images" or "texts"."""
    return "texts" if takes_texts(record) else "images"


def measured_on(record: View) -> str:
    """Return where latency was measured: "this machine", or the device's address."""
    return record.at("device").text("address") or "this machine"


def candidate(record: View, name: str) -> View:
    """Return the candidate called `name`, empty where there is none."""
    found = (item for item in record.at("candidates").views("candidates") if item.text("name") == name)
    return next(found, View({}))


def timed(record: View) -> str:
    """Return the candidate that was timed against fp32: what ships, unless the comparison names another."""
    return record.at("latency").text("candidate") or chosen(record) or "new"


def latency_arms(record: View) -> list[tuple[str, View]]:
    """Return the arms of the latency comparison as (candidate, numbers), fp32 first; empty where none was made."""
    latency = record.at("latency")
    arms = [(FP32, latency.at("base")), (timed(record), latency.at("new"))]
    return [(name, arm) for name, arm in arms if arm]
