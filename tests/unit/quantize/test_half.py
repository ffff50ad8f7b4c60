"""fp16: half the size, the same interface, and float32 where half precision would overflow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.half import HalfMethod, to_half
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.temperature import with_temperature
from edgeft_exporters.onnx.lint import lint

EXECUTION, METHOD = Execution(1, 8), HalfMethod(16)


def words(count: int) -> ArrayRows:
    return ArrayRows("x", np.random.default_rng(0).normal(size=(count, 5, 12)).astype(np.float32))


def test_weights_are_halved_and_the_interface_stays(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    rows = ArrayRows("pixels", pixels(32))
    made, skips = to_half(net, rows, METHOD, execution=EXECUTION)
    assert skips == ()
    assert list(made.graph.input) == list(net.graph.input)
    assert [value.name for value in made.graph.output] == [value.name for value in net.graph.output]
    sizes = [
        sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer if len(tensor.dims) > 1)
        for model in (net, made)
    ]
    assert sizes[1] * 2 == sizes[0]
    expected, found = (logits_of(model, rows, EXECUTION) for model in (net, made))
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error < 2e-3  # 11 bits a weight: measured 5e-4


def test_what_would_overflow_stays_float32_and_says_so(encoder: onnx.ModelProto) -> None:
    for tensor in encoder.graph.initializer:
        if tensor.name in {"up.w", "gate.w"}:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(300), tensor.name))
    made, skips = to_half(encoder, words(16), METHOD, execution=EXECUTION)
    reasons = {skip.layer: skip.reason for skip in skips}
    assert {"mul" if name == "hidden" else name for name in reasons} >= {"mul", "down"}
    assert "near fp16's largest number 65504" in reasons["down"]
    kept = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kept["down.w"] == TensorProto.FLOAT
    assert kept["head.w"] == TensorProto.FLOAT16 or "head" in reasons
    found = logits_of(made, words(16), EXECUTION)
    assert np.isfinite(found).all()


def test_the_linter_says_that_it_is_fp16(encoder: onnx.ModelProto, tmp_path: Path) -> None:
    made, _ = to_half(encoder, words(8), METHOD, execution=EXECUTION)
    onnx.save(made, tmp_path / "half.onnx")
    (finding,) = lint(tmp_path / "half.onnx")
    assert finding.expected
    assert "float16" in finding.reason


def test_bad_input_is_refused(encoder: onnx.ModelProto) -> None:
    with pytest.raises(QuantizationError, match="no inputs"):
        to_half(encoder, words(0), METHOD, execution=EXECUTION)
    poisoned = words(4)
    poisoned.values[1, 2, 3] = np.nan
    with pytest.raises(QuantizationError, match="holds NaN"):
        to_half(encoder, poisoned, METHOD, execution=EXECUTION)


def test_a_temperature_fitted_afterwards_keeps_the_graph_sound(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    made, _ = to_half(net, ArrayRows("pixels", pixels(8)), METHOD, execution=EXECUTION)
    fitted = with_temperature(made, 2.5)
    onnx.checker.check_model(fitted, full_check=True)
    onnx.shape_inference.infer_shapes(fitted, strict_mode=True)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in fitted.graph.initializer}["temperature"]
    assert (held.dtype, float(held)) == (np.float16, 2.5)


def test_scales_that_stay_float32_are_the_same_numbers(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    for tensor in net.graph.initializer:
        if tensor.name == "std":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1 / 57.3), "std"))
    made, _ = to_half(net, ArrayRows("pixels", pixels(8)), METHOD, execution=EXECUTION)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    scales = [held[node.input[1]] for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert [(scale.dtype, float(scale)) for scale in scales] == [(np.float32, float(np.float32(1 / 57.3)))]


def test_masks_of_minus_infinity_are_healthy_and_finite_ones_overflow() -> None:
    """Attention whose mask is added as a constant and set by a Where: both to -inf, or to the least float32."""

    def attention(masked: float) -> onnx.ModelProto:
        above = np.triu(np.full((5, 5), masked, np.float32), 1)
        arrays = {"causal": above, "there": np.array([[1, 1, 1, 1, 0]], bool), "masked": np.float32(masked)}
        nodes = [
            helper.make_node("Transpose", ["x"], ["x.t"], "x.t", perm=[0, 2, 1]),
            helper.make_node("MatMul", ["x", "x.t"], ["dots"], "dots"),
            helper.make_node("Add", ["dots", "causal"], ["sum"], "sum"),
            helper.make_node("Where", ["there", "sum", "masked"], ["where"], "where"),
            helper.make_node("Softmax", ["where"], ["shares"], "shares", axis=-1),
            helper.make_node("MatMul", ["shares", "x"], ["logits"], "logits"),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 12])
        y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5, 12])
        initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "attention", [x], [y], initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    for masked, floats in ((-np.inf, set()), (np.finfo(np.float32).min, {"sum", "where", "shares"})):
        model = attention(masked)
        made, skips = to_half(model, words(8), METHOD, execution=EXECUTION)
        assert {skip.layer for skip in skips} == floats
        expected, found = (logits_of(each, words(8), EXECUTION) for each in (model, made))
        np.testing.assert_allclose(found, expected, atol=0.02)  # 11 bits of values up to 4, and of their products


def test_operators_that_have_no_half_stay_float32() -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,4] x) => (float[N,3] logits) '
        "{ h = Gemm(x, w) c = Celu(h) r = Range(zero, three, one) logits = Add(c, r) }"
    )
    arrays = {"w": np.ones((4, 3)), "zero": np.array(0), "three": np.array(3), "one": np.array(1)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    rows = ArrayRows("x", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    made, _ = to_half(model, rows, HalfMethod(8), execution=Execution())
    expected, found = (logits_of(each, rows, Execution()) for each in (model, made))
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_an_output_that_is_an_input_is_refused(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    net.graph.output.append(net.graph.input[0])
    with pytest.raises(QuantizationError, match="output 'pixels' is an input or a weight"):
        to_half(net, ArrayRows("pixels", pixels(8)), METHOD, execution=EXECUTION)
