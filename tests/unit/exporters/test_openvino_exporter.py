import builtins
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeft.core.errors import DeviceError, EdgeftError, IntegrityError
from edgeft.graph.execute import open_session
from edgeft.quantize.on_target import target_outputs
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import quantize_static, static_method
from edgeft.testing.exporter_cases import ExporterCase, cases, classifier
from edgeft_exporters.openvino import OpenVinoExporter
from edgeft_exporters.openvino.placement import PLACEMENT

Pixels = Callable[[int], np.ndarray]


def quantized(model: onnx.ModelProto, pixels: Pixels) -> onnx.ModelProto:
    return quantize_static(model, PLACEMENT, pixels(32), static_method("gptq", 32, 0.0)).model


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


@pytest.mark.parametrize("case", cases(OpenVinoExporter()), ids=lambda case: case.name)
def test_passes_the_exam(case: ExporterCase, tmp_path: Path) -> None:
    case.check(OpenVinoExporter(), tmp_path)


def test_lowers_to_its_ir_beside_the_graph(residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path) -> None:
    graph = saved(quantized(residual, pixels), tmp_path)
    (tmp_path / "out").mkdir()
    files = OpenVinoExporter().lower(graph, tmp_path / "out")
    assert [file.name for file in files] == ["model.onnx", "model.xml", "model.bin"]
    assert files[0].read_bytes() == graph.read_bytes()
    x = pixels(5)
    from_onnx, from_ir = (OpenVinoExporter().session(file, 1)({"pixels": x})[0] for file in files[:2])
    np.testing.assert_array_equal(from_onnx, from_ir)


def test_every_convolution_runs_in_integers(residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path) -> None:
    findings = OpenVinoExporter().lint(saved(quantized(residual, pixels), tmp_path))
    assert {f.node: f.expected for f in findings if f.op_type in {"Conv", "Gemm", "Add"}} == {"stem": True}
    assert not [finding for finding in findings if "report it" in finding.mend]  # nothing unexplained


def test_a_convolution_left_in_float_says_so(residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path) -> None:
    method = static_method("minmax", 16)
    kept = {"b1": "a test", "b2": "a test", "b.down": "a test"}
    made = quantize_static(
        residual, PLACEMENT, pixels(16), type(method)(method.ranges, method.weights, 16, keep_float=kept)
    )
    findings = OpenVinoExporter().lint(saved(made.model, tmp_path))
    assert {finding.node for finding in findings if finding.op_type == "Conv"} == {"stem", *kept}
    assert all("compress left it in float" in finding.reason for finding in findings if finding.op_type == "Conv")


def test_operators_whose_names_are_not_their_tensors_are_found(
    residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path
) -> None:
    """As torch exports them: OpenVINO calls an operator by its node's name where it has one."""
    for node in residual.graph.node:
        node.name = f"node_{node.name}"
    made = quantized(residual, pixels)
    findings = OpenVinoExporter().lint(saved(made, tmp_path))
    assert {f.node for f in findings if f.op_type == "Conv"} == {"node_stem"}
    assert not [f for f in findings if f.op_type == "QuantizeLinear" and not f.expected]
    spent = OpenVinoExporter().profile(saved(residual, tmp_path), 1, {"pixels": pixels(1)})
    assert {"stem", "a1", "a2", "b1", "b2", "b.down"} <= {tensor.removesuffix(".relu") for tensor in spent}


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    run = OpenVinoExporter().session(saved(classifier(), tmp_path), 1)
    with pytest.raises(EdgeftError, match=r"graph\.onnx: OpenVINO cannot run it"):
        run({"pixels": np.zeros((1, 9, 8, 3), np.uint8)})


def test_answers_stay_near_the_float_graph(residual: onnx.ModelProto, pixels: Pixels) -> None:
    rows, model = ArrayRows("pixels", pixels(64)), quantized(residual, pixels)
    found = target_outputs(OpenVinoExporter(), 1)(model, "logits", rows, 16)
    expected = open_session(residual, 1).run(None, rows[:])[0]
    scores = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    assert np.abs(scores - expected).max() < 0.02
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95


def test_a_batch_of_any_size_gets_the_answers_of_its_rows(tmp_path: Path) -> None:
    run = OpenVinoExporter().session(saved(classifier(), tmp_path), 1)
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    whole = run({"pixels": x})[0]
    rows = [run({"pixels": x[i : i + 1]})[0] for i in range(5)]
    np.testing.assert_allclose(np.concatenate(rows), whole, atol=1e-6)


def test_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[2].op_type = "NoSuchOperator"
    graph = saved(model, tmp_path)
    with pytest.raises(EdgeftError, match="NoSuchOperator"):
        OpenVinoExporter().lower(graph, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DeviceError, match="0 threads"):
        OpenVinoExporter().session(graph, 0)
    with pytest.raises(DeviceError, match=r"absent\.onnx"):
        OpenVinoExporter().session(tmp_path / "absent.onnx", 1)
    onnx.save(classifier(), graph, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(IntegrityError, match="another file"):
        OpenVinoExporter().session(graph, 1)


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "openvino":
            raise ImportError("no openvino")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DeviceError) as error:
        OpenVinoExporter().fingerprint()
    assert error.value.hint == "pip install 'edgeft[openvino]'"
