"""Which targets there are, what each takes, and why one does not work here."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeft import catalog
from edgeft.cli.main import app
from edgeft.pipeline.targets import targets

RUNNER = CliRunner()
INSTALLED = catalog.exporters()


def test_ours_are_listed_with_their_types_and_whether_they_run_here() -> None:
    found = {item.name: item for item in targets()}
    onnx, tensorrt = found["onnx"], found["tensorrt"]
    assert (onnx.works, onnx.runs, onnx.hint, onnx.distribution) == (True, True, None, "edgeft")
    assert (onnx.activations, onnx.weights) == ("uint8, asymmetric", "int8, symmetric")
    assert "Conv" in onnx.integer_operators
    assert "onnxruntime" in onnx.state
    assert (tensorrt.works, tensorrt.activations) == (True, "int8, symmetric")


def test_a_runtime_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = {item.name: item for item in targets()}["openvino"]
    assert (found.works, found.runs) == (False, False)
    assert found.hint == "pip install 'edgeft[openvino]'"


def test_one_that_cannot_be_imported_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_target.py").write_text("raise RuntimeError('no such chip')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalog, "exporters", lambda: {"broken": "broken_target:Broken", **INSTALLED})
    done = RUNNER.invoke(app, ["targets", "--json"])
    told = {item["name"]: item for item in json.loads(done.stdout)["targets"]}
    assert told["broken"]["state"] == "RuntimeError: no such chip"
    assert (told["broken"]["works"], told["onnx"]["works"]) == (False, True)
    text = RUNNER.invoke(app, ["targets"]).stdout
    assert "cannot be used" in text
    assert "broken: RuntimeError: no such chip" in text
