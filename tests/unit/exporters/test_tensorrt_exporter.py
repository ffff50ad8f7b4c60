"""No engine is built here: what is tested is where Q/DQ stand, what the lint says, and what the graph answers."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.cli.diagnosis import diagnose
from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.graph.execute import open_session
from edgeft.graph.passes.plain_pixels import plain_pixels_
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.plan import make_plan, shortcut
from edgeft.quantize.qat import QatMethod, tune
from edgeft.quantize.static import quantize_static, static_method
from edgeft.testing.exporter_cases import ExporterCase, cases
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.conformance import breaches
from edgeft_exporters.tensorrt.pixels import lower_pixels_
from edgeft_exporters.tensorrt.placement import PLACEMENT
from edgeft_exporters.tensorrt.present import lacking

Pixels = Callable[[int], np.ndarray]


def quantized(model: onnx.ModelProto, pixels: Pixels) -> onnx.ModelProto:
    return quantize_static(model, PLACEMENT, pixels(32), static_method("gptq", 32, 0.0)).model


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def found(model: onnx.ModelProto) -> list[str]:
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    lower_pixels_(graph)
    return [finding.reason for finding in breaches(graph)]


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


def test_an_add_whose_other_branch_stays_float_says_so(residual: onnx.ModelProto) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(residual))
    plain_pixels_(model)
    plan = make_plan(model, PLACEMENT, dict.fromkeys(("a1", "a2"), "asked for"))
    assert "a.sum" not in {op.name for op in plan.ops}
    reasons = {skip.layer: skip.reason for skip in plan.skips}
    assert reasons["a.sum"] == "no weights of its other branch are integers"
    assert "b.sum" not in reasons


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
    assert [node.op_type for node in lowered.graph.node if "pixels" in node.input] == ["Cast"]
    text = script.read_text()
    assert '"--minShapes=pixels:1x12x12x3" "--optShapes=pixels:1x12x12x3" "--maxShapes=pixels:${BATCH}x12x12x3"' in text
    assert "nverified on hardware" in text


def test_a_cast_reads_the_pixels_first_and_once(residual: onnx.ModelProto) -> None:
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(residual))
    assert len(lower_pixels_(graph).changed) == 2
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    assert lower_pixels_(graph).changed == ()
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before


def test_integers_that_something_else_reads_are_left_and_told(residual: onnx.ModelProto) -> None:
    residual.graph.node.append(helper.make_node("Identity", ["image"], ["copy"], "copy"))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(residual))
    (refusal,) = lower_pixels_(graph).refused
    assert refusal.node == "image"
    assert "another operator than a Cast" in refusal.reason


def test_another_targets_graph_is_refused_by_name(residual: onnx.ModelProto, pixels: Pixels, tmp_path: Path) -> None:
    from edgeft_exporters.onnx.placement import PLACEMENT as X86

    made = quantize_static(residual, X86, pixels(16), static_method("minmax", 16))
    onnx.save(made.model, tmp_path / "graph.onnx")
    with pytest.raises(EdgeftError, match="zero point must be int8") as error:
        TensorRtExporter().lower(tmp_path / "graph.onnx", tmp_path / "out")
    assert error.value.hint == "quantize with --target tensorrt"
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


@pytest.mark.skipif(lacking() is None, reason="TensorRT and a GPU are here")
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
    with pytest.raises(DeviceError, match="the package tensorrt cannot be imported: No module named 'tensorrt'"):
        exporter.session(tmp_path, 1)


def test_doctor_marks_it(tmp_path: Path) -> None:
    told = {item["name"]: item["reason"] for item in diagnose(tmp_path)["exporters"]}
    assert "unverified on hardware" in told["tensorrt"]
    assert "unverified" not in told["onnx"]


def test_the_script_hands_trtexec_its_profile_and_more_options(
    residual: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(residual, tmp_path / "graph.onnx")
    script = TensorRtExporter().lower(tmp_path / "graph.onnx", tmp_path / "out")[1]
    (tmp_path / "trtexec").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("BATCH", "16")
    options = ["--memPoolSize=workspace:512", "--useDLACore=0", "--allowGPUFallback"]
    done = subprocess.run([script, *options], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [
        *("--onnx=model.onnx", "--stronglyTyped", "--saveEngine=./model.engine", "--timingCacheFile=./timing.cache"),
        *("--minShapes=pixels:1x12x12x3", "--optShapes=pixels:1x12x12x3", "--maxShapes=pixels:16x12x12x3"),
        *options,
    ]
    (tmp_path / "out" / "manifest.json").write_text("{}")
    beside = subprocess.run([script], check=True, capture_output=True, text=True).stdout.split()
    assert "--saveEngine=../model.engine" in beside  # a bundle takes no new file


def small(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], out: str) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    arrays = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in weights.items()]
    graph = helper.make_graph(nodes, "small", [value("x", 1, ["N", 32, 8, 8])], [value(out, 1, None)], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def op(op_type: str, made: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [made], made, **attributes)


W32 = (32, 32, 1, 1)
SHAPES = {
    # ConvNeXt: what a convolution made is the shortcut of a block that ends in a product
    "convnext": (
        [op("Conv", "s", "x", "ws"), op("Conv", "d", "s", "wd"), op("Mul", "m", "d", "g"), op("Add", "y", "m", "s")],
        {"ws": W32, "wd": W32, "g": (1, 32, 1, 1)},
        "s",
    ),
    # SE-ResNet: the main branch ends in a gate, the shortcut is one convolution
    "squeeze and excite": (
        [
            op("Conv", "a", "x", "wa"), op("Relu", "r", "a"), op("Conv", "b", "r", "wb"),
            op("GlobalAveragePool", "p", "b"), op("Sigmoid", "g", "p"), op("Mul", "m", "b", "g"),
            op("Conv", "down", "x", "wd"), op("Add", "y", "m", "down"),
        ],
        {"wa": W32, "wb": W32, "wd": W32},
        "down",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "weights", "expected"), SHAPES.values(), ids=SHAPES)
def test_the_shortcut_is_found_where_the_main_branch_ends_in_a_product(
    nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], expected: str
) -> None:
    model = small(nodes, weights, "y")
    (add,) = [node for node in ir.from_proto(model).graph if node.op_type == "Add"]
    assert add.inputs[shortcut(add.inputs) or 0].name == expected  # type: ignore[union-attr]
    x = np.random.default_rng(0).normal(size=(16, 32, 8, 8)).astype(np.float32)
    assert found(quantize_static(model, PLACEMENT, x, static_method("minmax", 8)).model) == []


def test_a_layer_that_stays_float_reads_floats() -> None:
    nodes = [op("Transpose", "f", "x", perm=[0, 2, 3, 1]), op("MatMul", "large", "f", "w1")]
    nodes += [op("MatMul", "small", "f", "w2"), op("Concat", "y", "large", "small", axis=3)]
    model = small(nodes, {"w1": (32, 100), "w2": (32, 2)}, "y")
    x = np.random.default_rng(0).normal(size=(16, 32, 8, 8)).astype(np.float32)
    made = quantize_static(model, PLACEMENT, x, static_method("minmax", 8)).model
    assert found(made) == []
    assert node_of(made, "small").input[0] == "f"
    assert node_of(made, "large").input[0] == "f::dq"


def test_a_net_of_too_few_channels_has_nothing_to_quantize() -> None:
    nodes = [op("Conv", "a", "x", "w"), op("Relu", "r", "a"), op("Conv", "b", "r", "v"), op("Add", "y", "b", "r")]
    model = small(nodes, {"w": (8, 32, 1, 1), "v": (8, 8, 1, 1)}, "y")
    with pytest.raises(QuantizationError, match="below 16 channels"):
        make_plan(ir.from_proto(model), PLACEMENT)


def test_a_squeeze_of_few_channels_is_no_first_layer() -> None:
    nodes = [op("Conv", "a", "x", "w"), op("Conv", "b", "a", "v")]
    plan = make_plan(ir.from_proto(small(nodes, {"w": (16, 32, 1, 1), "v": (32, 16, 1, 1)}, "b")), PLACEMENT)
    assert [o.name for o in plan.weighted] == ["a", "b"]
    nodes = [op("Conv", "a", "x", "w"), op("Conv", "c", "a", "u"), op("Conv", "b", "c", "v")]
    weights = {"w": W32, "u": (4, 32, 1, 1), "v": (32, 4, 1, 1)}
    plan = make_plan(ir.from_proto(small(nodes, weights, "b")), PLACEMENT)
    assert [o.name for o in plan.weighted] == ["a"]


def test_a_text_model_gets_a_profile_of_lengths(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    nodes = [op("Cast", "f", "ids:0", to=1), op("ReduceSum", "y", "f", "axes")]
    inputs = [value("ids:0", 7, ["N", "L"]), value("table", 1, [8, 5])]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph(nodes, "text", inputs, [value("y", 1, None)], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "t.onnx")
    script = TensorRtExporter().lower(tmp_path / "t.onnx", tmp_path / "out")[1]
    text = script.read_text()
    assert "\"--maxShapes='ids:0':${BATCH}x${LENGTH},table:8x5\"" in text
    assert "\"--minShapes='ids:0':1x1,table:8x5\"" in text
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_training_keeps_scales_behind_a_relu_and_moves_float_biases(residual: onnx.ModelProto, pixels: Pixels) -> None:
    made = quantized(residual, pixels)
    method = QatMethod(steps=4, batch=8, rate=0.2, scale_rate=1e-3)
    tuned = tune(made, residual, PLACEMENT, pixels(16), method, rng=np.random.default_rng(0))
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (made, tuned.model)
    )
    assert after["a1.relu::scale"] == pytest.approx(before["a1.relu::scale"], rel=0.02)
    assert (after["a1::bias"] != before["a1::bias"]).any()


def test_a_shortcut_is_the_branch_with_fewer_operators(residual: onnx.ModelProto) -> None:
    adds = {node.name: node for node in ir.from_proto(residual).graph if node.op_type == "Add"}
    assert {name: node.inputs[shortcut(node.inputs) or 0].name for name, node in adds.items()} == {  # type: ignore[union-attr]
        "a.sum": "stem.relu",
        "b.sum": "b.down",
    }
    assert shortcut([adds["a.sum"].inputs[1]] * 2) is None
