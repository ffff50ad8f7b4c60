"""What a device must have to run edgeft's device rooms; standard library only, so that one that lacks it can say so."""

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from edgeft.core import machine
from edgeft.core.keys import versions
from edgeft.core.stage import Json

NEEDED: Final[Mapping[str, str]] = {"numpy": "1.26", "onnxruntime": "1.23", "pillow": "10.3", "pydantic": "2.9"}
"""The base install's libraries that measure and verify, each with its lowest version."""
FOR_TEXTS: Final[Mapping[str, str]] = {"tokenizers": "0.20"}
_OPTIONAL = ("openvino", "tensorrt")


def device_facts() -> dict[str, Json]:
    """Return what this machine is, its interpreter, and `libraries()`."""
    return {**machine.facts(), "executable": sys.executable, "libraries": libraries()}


def libraries() -> dict[str, Json]:
    """Return the versions of the libraries that a device may have, by name; null where one is missing."""
    found = versions((*NEEDED, *FOR_TEXTS, *_OPTIONAL))
    return {name: None if version == "absent" else version for name, version in found.items()}


def lacks(found: Mapping[str, Any], *, texts: bool = False) -> list[str]:
    """Return what is missing or too old, in words.

    Args:
        found: versions by name, None where one is missing.
        texts: whether it is to decide texts.
    """
    wanted = {**NEEDED, **(FOR_TEXTS if texts else {})}
    told = {name: f"{name}>={lowest} ({found.get(name) or 'missing'})" for name, lowest in wanted.items()}
    return [
        told[name]
        for name, lowest in wanted.items()
        if not found.get(name) or _numbers(str(found[name])) < _numbers(lowest)
    ]


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
