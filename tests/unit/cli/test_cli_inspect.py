"""`edgeft inspect` on models made by hand, bundles and data."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edgeft.cli.contents import contents
from edgeft.cli.main import app
from edgeft.core.errors import DataError, IntegrityError

RUNNER = CliRunner()


def _model(path: Path) -> Path:
    """Two MatMuls: the first between dequantized tensors, the second in float."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_u"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero_u"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w1", "scale", "zero_s"], ["w1d"]),
        helper.make_node("MatMul", ["xd", "w1d"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w2"], ["scores"], name="second"),
    ]
    weights = [
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero_u"),
        numpy_helper.from_array(np.array(0, np.int8), "zero_s"),
        numpy_helper.from_array(np.ones((4, 3), np.int8), "w1"),
        numpy_helper.from_array(np.ones((3, 2), np.float32), "w2"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="by hand"), path)
    return path


def test_a_model_s_operators_values_and_integer_share(tmp_path: Path) -> None:
    found = contents(_model(tmp_path / "m.onnx"))
    assert found["ops"] == {"DequantizeLinear": 2, "MatMul": 2, "QuantizeLinear": 1}
    assert found["inputs"] == [{"name": "x", "dtype": "float", "shape": ["N", 4]}]
    assert found["outputs"] == [{"name": "scores", "dtype": "float", "shape": ["N", 2]}]
    assert found["opsets"] == {"ai.onnx": 20}
    assert found["parameters"] == {"int8": 13, "float": 7, "uint8": 1}
    assert found["quantized"] == {"weighted_ops": 2, "integer_ops": 1, "share": 0.5, "float_ops": ["second"]}
    assert found["external_data"] == []


def test_inspect_prints_a_model_for_people_and_for_scripts(tmp_path: Path) -> None:
    model = _model(tmp_path / "m.onnx")
    text = RUNNER.invoke(app, ["inspect", str(model)])
    assert text.exit_code == 0
    assert "1 of 2 weighted operators" in text.stdout
    assert "in float: second" in text.stdout
    answer = json.loads(RUNNER.invoke(app, ["inspect", str(model), "--json"]).stdout)
    assert (answer["status"], answer["kind"]) == ("ok", "model")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff\xff no protobuf")
    with pytest.raises(IntegrityError, match=r"m\.onnx"):
        contents(tmp_path / "m.onnx")


def test_a_bundle_s_manifest(tmp_path: Path) -> None:
    manifest = {
        "name": "cells",
        "task": "image_classification",
        "precision": "int8",
        "target": "onnx",
        "classes": ["defective", "functional"],
        "ok_class": "functional",
        "input": {"height": 224, "width": 224, "resize": "squash", "resize_to": None},
        "gates": [{"name": "accuracy", "verdict": "PASS", "value": 0.4, "limit": 2.0, "unit": "pp"}],
        "content_digest": "0123abcd",
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model.onnx").write_bytes(b"x" * 1500)
    result = RUNNER.invoke(app, ["inspect", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    for needle in ("defective, functional", "0123abcd", "int8 for onnx", "1.5 kB", "PASS"):
        assert needle in result.stdout


def test_a_broken_manifest_is_an_integrity_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    assert RUNNER.invoke(app, ["inspect", str(tmp_path)]).exit_code == 8


def test_data_s_class_counts(tmp_path: Path) -> None:
    for name, count in (("dent", 2), ("ok", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(b"x")
    result = RUNNER.invoke(app, ["inspect", str(tmp_path), "--json"])
    answer = json.loads(result.stdout)
    assert (answer["kind"], answer["classes"], answer["n"]) == ("data", {"dent": 2, "ok": 3}, 5)
    assert "dent" in RUNNER.invoke(app, ["inspect", str(tmp_path)]).stdout


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        contents(tmp_path / "nowhere")


def test_a_recipe_is_sent_to_plan(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1\n")
    for thing in (tmp_path, tmp_path / "recipe.yaml"):
        with pytest.raises(DataError) as caught:
            contents(thing)
        assert caught.value.hint == f"edgeft plan {thing}"
