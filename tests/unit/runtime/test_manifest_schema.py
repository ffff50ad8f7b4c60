"""docs/manifest.schema.json and docs/runtime.md say what a bundle's manifest is."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

DOCS = Path(__file__).parents[3] / "docs"
DIGEST = "0" * 64


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads((DOCS / "manifest.schema.json").read_text())


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(params=["tiny_bundle", "text_bundle"])
def text(request: pytest.FixtureRequest) -> str:
    return (request.getfixturevalue(request.param) / "manifest.json").read_text()


@pytest.fixture
def values(tiny_bundle: Path) -> dict[str, Any]:
    return json.loads((tiny_bundle / "manifest.json").read_text())


def test_a_bundles_manifest_is_valid(validator: Draft202012Validator, text: str) -> None:
    assert [error.message for error in validator.iter_errors(json.loads(text))] == []


@pytest.mark.parametrize("name", ["sbom.cdx.json", "anything_new.txt"])
def test_more_files_and_evidence_may_come(validator: Draft202012Validator, values: dict[str, Any], name: str) -> None:
    for key in ("files", "evidence"):
        values[key][name] = DIGEST
    assert validator.is_valid(values)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("schema",), 2),
        (("extra",), 1),
        (("classes",), ["only"]),
        (("files", "../above"), DIGEST),
        (("files", "model.onnx"), "abc"),
        (("input", "filter"), "nearest"),
        (("input", "resize_to"), 20),
        (("input", "kind"), "text"),
        (("decision", "method"), "threshold"),
        (("decision", "method"), "vote"),
    ],
)
def test_what_edgeft_refuses_is_not_valid(
    validator: Draft202012Validator, values: dict[str, Any], path: tuple[str, ...], wrong: object
) -> None:
    *above, last = path
    place = values
    for key in above:
        place = place[key]
    place[last] = wrong
    assert not validator.is_valid(values)


def test_thresholds_are_valid(validator: Draft202012Validator, values: dict[str, Any]) -> None:
    values["decision"] |= {"method": "threshold", "ok": "green", "stop_at": 0.25, "sure_at": 0.5, "why": "open"}
    assert validator.is_valid(values)
    values["decision"]["stop_at"] = 0
    assert not validator.is_valid(values)


def test_no_key_may_be_missing(validator: Draft202012Validator, values: dict[str, Any]) -> None:
    assert len(values) == 17
    for key in values:
        assert not validator.is_valid({name: value for name, value in values.items() if name != key})


def test_the_page_tells_every_key(schema: dict[str, Any]) -> None:
    page = (DOCS / "runtime.md").read_text()
    inputs = [key for kind in schema["properties"]["input"]["oneOf"] for key in kind["properties"]]
    decisions = [key for kind in schema["properties"]["decision"]["oneOf"] for key in kind["properties"]]
    for key in {*schema["properties"], *inputs, *decisions} - {"kind", "method"}:
        assert f"`{key}`" in page, key


def test_the_pages_example_runs(tiny_bundle: Path, tiny_images: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "runtime.md").read_text(), re.DOTALL)
    for theirs, ours in (("dist/solar-cells", tiny_bundle), ("cell.png", tiny_images / "red" / "0.png"), ("224", 16)):
        assert theirs in code
        code = code.replace(theirs, str(ours))
    told = f"{code}\nprint([one.label for one in found], found[0].review)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "['red', 'red'] False\n", done.stderr


def test_the_digest_is_had_from_the_text_alone(text: str) -> None:
    digest = json.loads(text)["self_digest"]
    dense = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda found: found[1] or "", text)
    assert hashlib.sha256(dense.replace(f',"self_digest":"{digest}"', "").encode()).hexdigest() == digest
