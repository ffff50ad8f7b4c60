"""Networks that are made otherwise than most: what they hold is quantized around, or refused by name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgeft.core.errors import DataError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT


def logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return logits_of(model, ArrayRows("pixels", x), Execution())


@pytest.mark.parametrize("size", [1e-7, 1e6])
def test_activations_of_any_size_cost_no_more(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], size: float
) -> None:
    """Half precision holds neither; biases and the Clip scale along, and the head takes it back."""
    x, noise = pixels(64, seed=9), []
    for each in (1.0, size):
        for tensor in net.graph.initializer:
            factor = {"stem.w": each, "stem.b": each, "dw.b": each, "high": each, "head.w": 1 / each}.get(tensor.name)
            if factor is not None:
                scaled = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
        found = logits(quantize_static(net, PLACEMENT, pixels(48), static_method("gptq", 32)).model, x)
        noise.append(float(np.square(found - logits(net, x)).mean()))
    assert noise[1] < 2 * noise[0]


def test_a_gemm_with_a_bias_for_each_row_stays_float() -> None:
    rng = np.random.default_rng(0)
    shapes = {"first.w": (6, 8), "position": (5, 8), "head.w": (8, 3)}
    made = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    made.append(numpy_helper.from_array(np.array([-1, 6]), "rows"))
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "rows"], ["tokens"]),
        node("Gemm", ["tokens", "first.w", "position"], ["first"]),
        node("Relu", ["first"], ["relu"]),
        node("Gemm", ["relu", "head.w"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 6])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [5, 3])
    graph = helper.make_graph(nodes, "net", [x], [y], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = rng.normal(size=(16, 5, 6)).astype(np.float32)
    result = quantize_static(model, PLACEMENT, inputs, static_method("gptq", 8), execution=Execution(1, 1))
    assert "its bias is [5, 8]: another one for each row" in {skip.reason for skip in result.skips}
    assert [each.op_type for each in result.model.graph.node].count("Gemm") == 2


def test_branches_that_read_tensors_around_them_are_quantized_around() -> None:
    rng, node = np.random.default_rng(0), helper.make_node
    names = ("first", "second")
    made = [numpy_helper.from_array(rng.normal(size=(8, 8, 1, 1)).astype(np.float32), f"{n}.w") for n in names]
    made.append(numpy_helper.from_array(np.array(0.0, np.float32), "zero"))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    then, other = (helper.make_graph([node(kind, ["r"], ["out"])], kind, [], [out]) for kind in ("Abs", "Neg"))
    nodes = [
        node("Conv", ["x", "first.w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "zero"], ["positive"]),
        node("If", ["positive"], ["chosen"], then_branch=then, else_branch=other),
        node("Conv", ["chosen", "second.w"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 4, 4])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 8, 4, 4])
    graph = helper.make_graph(nodes, "net", [x], [y], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    rows = rng.normal(size=(16, 8, 4, 4)).astype(np.float32)
    result = quantize_static(model, PLACEMENT, rows, static_method("gptq", 8))
    expected, found = (logits_of(each, ArrayRows("x", rows), Execution()) for each in (model, result.model))
    assert ((found - expected) ** 2).mean() < 0.01 * expected.var()


def test_what_stays_float_is_float_while_weights_are_rounded(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    """A runtime may round a float convolution between integers by itself: the sweep must not learn from that."""
    how = replace(static_method("gptq", 32), keep_float={"dw": "asked for"}, spare=0.0)
    made = quantize_static(net, PLACEMENT, pixels(48), how)
    x = pixels(64, seed=9)
    expected, found = (
        logits_of(model, ArrayRows("pixels", x), Execution(optimise=False)) for model in (made.reference, made.model)
    )
    assert np.square(found - expected).mean() < 2.5e-4 * expected.var()  # 36 dB; learning from it gives 32


def test_inputs_that_the_runtime_refuses_are_named() -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (int64[N,4] ids) => (float[N,3] logits) '
        "{ e = Gather(table, ids) f = ReduceMean<keepdims=0>(e, axis) logits = Gemm(f, w) }"
    )
    rng = np.random.default_rng(0)
    arrays = {"table": rng.normal(size=(70, 8)).astype(np.float32), "w": rng.normal(size=(8, 3)).astype(np.float32)}
    arrays["axis"] = np.array([1])
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    ids = np.zeros((24, 4), np.int64)
    ids[20, 0] = 99
    with pytest.raises(DataError, match=r"cannot run the graph on input 20: .*indices element out of data bounds"):
        quantize_static(model, PLACEMENT, ids, static_method("minmax", 8))
    with pytest.raises(DataError, match="cannot run the graph on inputs 16 to 23: "):
        logits_of(model, ArrayRows("ids", ids), Execution(1, 8))


def test_a_clip_with_limits_of_one_number_each_is_taken(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    for tensor in net.graph.initializer:
        if tensor.name in {"low", "high"}:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(1), tensor.name))
    assert quantize_static(net, PLACEMENT, pixels(16), static_method("minmax", 8)).unsafe_pairs == 0
