"""The profiles of onnxruntime: the exam, what they promise, and where they refuse to run."""

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgeft.core.errors import DeviceError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.pair_rule import unsafe_pairs
from edgeft.quantize.static import StaticResult, quantize_static, static_method
from edgeft.runtime.saturation import saturates
from edgeft.testing.exporter_cases import ExporterCase, cases
from edgeft_exporters.onnx import OnnxArm64Exporter, OnnxExporter, OnnxVnniExporter

PROFILES = (OnnxVnniExporter(), OnnxArm64Exporter())


@pytest.mark.parametrize(
    ("exporter", "case"),
    [(exporter, case) for exporter in PROFILES for case in cases(exporter)],
    ids=lambda item: item.name,
)
def test_passes_the_exam(
    exporter: OnnxExporter, case: ExporterCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeft.runtime.saturation.saturates", lambda: False)
    case.check(exporter, tmp_path)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)


def quantized(net: onnx.ModelProto, exporter: OnnxExporter, pixels: np.ndarray) -> StaticResult:
    return quantize_static(net, exporter.placement, pixels, static_method("gptq", 16, 0.0), execution=Execution(1))


def answer(model: onnx.ModelProto, exporter: OnnxExporter, folder: Path, pixels: np.ndarray) -> np.ndarray:
    onnx.save(model, folder / "net.onnx")
    (scores,) = exporter.session(folder / "net.onnx", 1)({"pixels": pixels})
    return np.asarray(scores)


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims
    }


def unsafe(model: onnx.ModelProto) -> int:
    """Count pairs that could saturate, in Conv weights [O, I, kh, kw] as their kernels read them."""
    flat = (array.transpose(2, 3, 1, 0).reshape(-1, len(array)) for array in weights(model).values() if array.ndim == 4)
    return sum(unsafe_pairs(matrix.T.astype(np.int64)) for matrix in flat)


def test_only_the_profile_for_every_cpu_binds_weights(residual: onnx.ModelProto, pixels: np.ndarray) -> None:
    found = {exporter.name: quantized(residual, exporter, pixels) for exporter in (OnnxExporter(), *PROFILES)}
    assert unsafe(found["onnx"].model) == 0
    assert unsafe(found["onnx-vnni"].model) > 0
    assert unsafe(found["onnx-arm64"].model) > 0
    assert {array.dtype for array in weights(found["onnx-arm64"].model).values()} == {np.dtype(np.int8)}


def test_arm64_takes_signed_activations_everywhere(residual: onnx.ModelProto, pixels: np.ndarray) -> None:
    model = quantized(residual, OnnxArm64Exporter(), pixels).model
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zeros = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) > 5
    assert {types[name] for name in zeros} == {onnx.TensorProto.INT8}
    assert any(onnx.numpy_helper.to_array(t).any() for t in model.graph.initializer if t.name in zeros)  # asymmetric


@pytest.mark.parametrize("exporter", PROFILES, ids=lambda item: item.name)
def test_its_file_answers_like_the_float_graph(
    residual: onnx.ModelProto,
    exporter: OnnxExporter,
    pixels: np.ndarray,
    tmp_path: Path,
) -> None:
    if exporter.name == "onnx-vnni" and saturates():
        pytest.skip("this CPU saturates: such a file is refused here")
    made = answer(quantized(residual, exporter, pixels).model, exporter, tmp_path, pixels)
    floats = answer(residual, OnnxExporter(), tmp_path, pixels)
    assert np.abs(made - floats).max() < 0.05
    assert (made.argmax(1) == floats.argmax(1)).mean() >= 0.9


def test_the_full_range_refuses_a_cpu_that_saturates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeft.runtime.saturation.saturates", lambda: True)
    for use in (OnnxVnniExporter().fingerprint, lambda: OnnxVnniExporter().session(tmp_path / "m.onnx", 1)):
        with pytest.raises(DeviceError, match="no VNNI") as error:
            use()
        assert "target onnx" in str(error.value.hint)


def test_arm64_is_for_another_machine_unless_it_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert OnnxArm64Exporter().cross
    with pytest.raises(DeviceError, match="unverified on hardware"):
        OnnxArm64Exporter().fingerprint()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not OnnxArm64Exporter().cross
    assert OnnxArm64Exporter().fingerprint()["runtime"] == "onnxruntime"


def test_elsewhere_lint_names_what_stays_in_float_by_the_contract(
    residual: onnx.ModelProto, pixels: np.ndarray, tmp_path: Path
) -> None:
    exporter = OnnxArm64Exporter()
    onnx.save(quantized(residual, exporter, pixels).model, tmp_path / "net.onnx")
    found = exporter.lint(tmp_path / "net.onnx")
    assert {item.op_type for item in found} >= {"Sub", "Softmax"}
    assert all(item.expected for item in found)
    onnx.save(residual, tmp_path / "float.onnx")
    assert [item.op_type for item in exporter.lint(tmp_path / "float.onnx")] == ["Graph"]


def test_products_of_integers_are_not_told_as_floats(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]> g (float[N,8] x) => (float[N,4] logits)
      <int8[8,4] w={1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float s={0.1}> {
        q, qs, qz = DynamicQuantizeLinear(x)
        product = MatMulInteger(q, w, qz)
        wide = Cast<to=1>(product)
        scale = Mul(qs, s)
        logits = Mul(wide, scale)
      }"""
    onnx.save(parser.parse_model(text), tmp_path / "dynamic.onnx")
    assert {item.op_type for item in OnnxArm64Exporter().lint(tmp_path / "dynamic.onnx") if not item.expected} == set()
