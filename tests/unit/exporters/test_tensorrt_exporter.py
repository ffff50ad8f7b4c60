"""No engine is built here: what is tested is where Q/DQ stand, what the lint says, and what the graph answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.graph.execute import open_session
from edgeft.graph.passes.plain_pixels import plain_pixels_
from edgeft.quantize.plan import make_plan, shortcut
from edgeft.quantize.static import quantize_static, static_method
from edgeft.testing.exporter_cases import ExporterCase, cases
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.conformance import breaches
from edgeft_exporters.tensorrt.placement import PLACEMENT

Pixels = Callable[[int], np.ndarray]


def quantized(model: onnx.ModelProto, pixels: Pixels) -> onnx.ModelProto:
    return quantize_static(model, PLACEMENT, pixels(32), static_method("gptq", 32, 0.0)).model


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def found(model: onnx.ModelProto) -> list[str]:
    return [finding.reason for finding in breaches(ir.from_proto(onnx.shape_inference.infer_shapes(model)))]


@pytest.mark.parametrize("case", cases(TensorRtExporter()), ids=lambda case: case.name)
def test_passes_the_exam(case: ExporterCase, tmp_path: Path) -> None:
    case.check(TensorRtExporter(), tmp_path)


def test_only_inputs_of_weighted_operators_and_shortcuts_are_quantized(residual: onnx.ModelProto) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(residual))
    plain_pixels_(model)
    plan = make_plan(model, PLACEMENT)
    assert plan.observed == ("x", "stem.relu", "a1.relu", "a.relu", "b1.relu", "b.down")
    adds = {op.name: [value.name for value in op.inputs] for op in plan.ops if op.node.op_type == "Add"}
    assert adds == {"a.sum": ["stem.relu"], "b.sum": ["b.down"]}
    assert [op.name for op in plan.weighted] == ["stem", "a1", "a2", "b1", "b2", "b.down"]
    assert {skip.layer: skip.reason for skip in plan.skips}["head"].startswith("tensorrt gains nothing below 16")


def test_pairs_are_symmetric_int8_and_biases_float(residual: onnx.ModelProto, pixels: Pixels) -> None:
    model = quantized(residual, pixels)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [array for name, array in arrays.items() if name.endswith("::zero_point")]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert arrays["a1::bias"].dtype == np.float32
    assert "a1::bias::q" not in arrays
    assert not [node for node in model.graph.node if node.op_type == "DequantizeLinear" and "image" in node.input]
    assert found(model) == []


def test_answers_equal_onnx_own_evaluator_and_stay_near_float(residual: onnx.ModelProto, pixels: Pixels) -> None:
    model, x = quantized(residual, pixels), pixels(24)
    expected = open_session(residual, 1).run(None, {"pixels": x})[0]
    by_node = open_session(model, 1, optimise=False).run(None, {"pixels": x})[0]
    reference = np.asarray(ReferenceEvaluator(model).run(None, {"pixels": x})[0])
    np.testing.assert_allclose(by_node, reference, atol=2e-3)  # sums in another order move single ties
    assert np.abs(by_node - expected).max() < 0.03


def test_a_float_graph_is_lowered_with_pixels_that_the_parser_takes(
    residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path
) -> None:
    onnx.save(residual, tmp_path / "graph.onnx")
    model, script = TensorRtExporter().lower(tmp_path / "graph.onnx", tmp_path / "out")
    lowered, x = onnx.load(model), pixels(3)
    assert "DequantizeLinear" not in {node.op_type for node in lowered.graph.node}
    both = [open_session(each, 1, optimise=False).run(None, {"pixels": x})[0] for each in (residual, lowered)]
    np.testing.assert_array_equal(*both)
    text = script.read_text()
    assert "--minShapes=pixels:1x12x12x3 --optShapes=pixels:1x12x12x3 --maxShapes=pixels:8x12x12x3" in text
    assert "nverified on hardware" in text


def test_another_targets_graph_is_refused_by_name(residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path) -> None:
    from edgeft_exporters.onnx.placement import PLACEMENT as X86

    made = quantize_static(residual, X86, pixels(16), static_method("minmax", 16))
    onnx.save(made.model, tmp_path / "graph.onnx")
    with pytest.raises(EdgeftError, match="zero point must be int8") as error:
        TensorRtExporter().lower(tmp_path / "graph.onnx", tmp_path / "out")
    assert "--target tensorrt" in str(error.value.hint)
    assert not (tmp_path / "out").exists()


def quantize_output(model: onnx.ModelProto) -> str:
    """Quantize what a1 returns: between it and its Relu."""
    position = next(index for index, node in enumerate(model.graph.node) if node.name == "a1.relu")
    pair = [
        helper.make_node("QuantizeLinear", ["a1", "a1.relu::scale", "a1.relu::zero_point"], ["a1.q"], "a1.Q"),
        helper.make_node("DequantizeLinear", ["a1.q", "a1.relu::scale", "a1.relu::zero_point"], ["a1.dq"], "a1.DQ"),
    ]
    model.graph.node[position].input[0] = "a1.dq"
    for node in reversed(pair):
        model.graph.node.insert(position, node)
    return "its own output is quantized"


def quantize_branch(model: onnx.ModelProto) -> str:
    """Quantize the convolution's branch of a residual, too."""
    position = next(index for index, node in enumerate(model.graph.node) if node.name == "a.sum")
    pair = [
        helper.make_node("QuantizeLinear", ["a2", "a1.relu::scale", "a1.relu::zero_point"], ["a2.q"], "a2.Q"),
        helper.make_node("DequantizeLinear", ["a2.q", "a1.relu::scale", "a1.relu::zero_point"], ["a2.dq"], "a2.DQ"),
    ]
    model.graph.node[position].input[0] = "a2.dq"
    for node in reversed(pair):
        model.graph.node.insert(position, node)
    return "the branch of its convolution is quantized"


def quantize_twice(model: onnx.ModelProto) -> str:
    """Give one tensor a second Q."""
    pair = next(node for node in model.graph.node if node.name == "a1.relu::Q")
    twin = helper.make_node("QuantizeLinear", list(pair.input), ["twin.q"], "twin.Q")
    model.graph.node.insert(list(model.graph.node).index(pair) + 1, twin)
    return "2 QuantizeLinear read one tensor"


def drop_input(model: onnx.ModelProto) -> str:
    """Feed a quantized layer floats."""
    node_of(model, "a2").input[0] = "a1.relu"
    return "its input is float, the other integers"


def quantize_bias(model: onnx.ModelProto) -> str:
    """Give a layer an int32 bias."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.int32), "bias.q"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "bias.scale"))
    dq = helper.make_node("DequantizeLinear", ["bias.q", "bias.scale"], ["bias.dq"], "bias.DQ")
    model.graph.node.insert(0, dq)
    node_of(model, "a2").input[2] = "bias.dq"
    return "its bias is quantized"


@pytest.mark.parametrize("fault", [quantize_output, quantize_branch, quantize_twice, drop_input, quantize_bias])
def test_the_lint_finds_a_planted_fault(
    residual: onnx.ModelProto, pixels: Pixels, fault: Callable[[onnx.ModelProto], str]
) -> None:
    model = quantized(residual, pixels)
    expected = fault(model)
    assert any(expected in reason for reason in found(model)), found(model)


def test_the_runtime_is_not_here_and_says_what_to_do(tmp_path: Path) -> None:
    exporter = TensorRtExporter()
    for call in (
        exporter.fingerprint,
        lambda: exporter.session(tmp_path, 1),
        lambda: exporter.profile(tmp_path, 1, {}),
    ):
        with pytest.raises(DeviceError, match="unverified on hardware") as error:
            call()
        assert "build_engine.sh" in str(error.value.hint)


def test_a_shortcut_is_the_branch_with_fewer_operators(residual: onnx.ModelProto) -> None:
    adds = {node.name: node for node in ir.from_proto(residual).graph if node.op_type == "Add"}
    assert {name: node.inputs[shortcut(node.inputs) or 0].name for name, node in adds.items()} == {  # type: ignore[union-attr]
        "a.sum": "stem.relu",
        "b.sum": "b.down",
    }
    assert shortcut([adds["a.sum"].inputs[1]] * 2) is None
