"""What a device must have is what edgeft's base install asks for; what it lacks is said in words."""

import re
import tomllib
from pathlib import Path

import pytest

from edgeft.pipeline.device.needs import FOR_TEXTS, NEEDED, device_facts, lacks

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
ALL = {"numpy": "2.0.1", "onnxruntime": "1.23.0", "pillow": "11.0", "pydantic": "2.10.0", "tokenizers": None}


@pytest.mark.parametrize(
    ("needed", "asked"),
    [(NEEDED, PROJECT["dependencies"]), (FOR_TEXTS, PROJECT["optional-dependencies"]["text"])],
)
def test_lowest_versions_are_those_of_the_package(needed: dict[str, str], asked: list[str]) -> None:
    bounds = {name: lowest for name, _, lowest in (re.split("(>=)", line, maxsplit=1) for line in asked)}
    assert dict(needed) == {name: bounds[name] for name in needed}


def test_what_is_missing_or_too_old_is_named() -> None:
    assert lacks(ALL) == []
    assert lacks(ALL, texts=True) == ["tokenizers>=0.20 (missing)"]
    assert lacks({**ALL, "numpy": "1.25.2", "pillow": None}) == ["numpy>=1.26 (1.25.2)", "pillow>=10.3 (missing)"]
    assert lacks({**ALL, "onnxruntime": "1.9"}) == ["onnxruntime>=1.23 (1.9)"]
    assert lacks({**ALL, "onnxruntime": "1.24rc1"}) == []


def test_facts_hold_a_version_for_what_is_installed() -> None:
    import onnxruntime

    found = device_facts()
    assert isinstance(found["libraries"], dict)
    assert found["libraries"]["onnxruntime"] == onnxruntime.__version__
    assert found["libraries"]["tensorrt"] is None or isinstance(found["libraries"]["tensorrt"], str)
