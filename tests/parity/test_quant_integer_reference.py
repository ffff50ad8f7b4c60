"""The exact integer reference against onnxruntime, bit for bit, on generated single-operator Q/DQ graphs.

onnxruntime's sums are exact on CPUs with VNNI, and everywhere for pair-safe weights; full-range weights are used only
where this CPU does not saturate. test_quant_without_vnni.py runs this file on a CPU that does.
"""

import tempfile
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.integer_reference import evaluate
from edgeft.quantize.layout import WeightLayout, weight_layout
from edgeft.quantize.pair_rule import repair
from edgeft.runtime.saturation import saturates

EXACT = not saturates()
"""Whether this CPU adds products exactly whatever the weights: with VNNI, or on ARM."""
BUDGET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Graph:
    """A Q/DQ graph under construction."""

    def __init__(self, shape: tuple[int, ...], scale: float, zero_point: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.input = helper.make_tensor_value_info("x", TensorProto.UINT8, list(shape))
        self.dq("x", "x.dq", scale, np.uint8(zero_point))

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        self.arrays[name] = np.asarray(array)
        return name

    def dq(self, source: str, output: str, scale: Any, zero_point: Any, **attributes: Any) -> str:  # noqa: ANN401 - arrays or numbers
        names = [self.constant(f"{output}.s", np.float32(scale)), self.constant(f"{output}.z", zero_point)]
        return self.add("DequantizeLinear", [source, *names], output, **attributes)

    def weight(self, name: str, q: np.ndarray, scale: np.ndarray, axis: int) -> str:
        self.constant(f"{name}.q", q)
        return self.dq(f"{name}.q", name, scale.astype(np.float32), np.zeros(len(scale), q.dtype), axis=axis)

    def q(self, source: str, scale: float, zero_point: int) -> str:
        names = [self.constant("y.s", np.float32(scale)), self.constant("y.z", np.uint8(zero_point))]
        return self.add("QuantizeLinear", [source, *names], "y")

    def model(self, output: str, kind: int = TensorProto.UINT8) -> onnx.ModelProto:
        arrays = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        result = helper.make_tensor_value_info(output, kind, None)
        graph = helper.make_graph(self.nodes, "g", [self.input], [result], arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray, fused: str) -> np.ndarray:
    """Run in onnxruntime after checking that it really uses the integer operator `fused`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        session = ort.InferenceSession(model.SerializeToString(), options)
        ran = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert fused in ran, ran
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(ran), ran
    return np.asarray(session.run(None, {"x": x})[0])


def check(model: onnx.ModelProto, x: np.ndarray, fused: str) -> None:
    expected = run(model, x, fused)
    (name,) = [value.name for value in model.graph.output]
    found = evaluate(model, {"x": x})[name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def safe_weights(rng: np.random.Generator, layout: WeightLayout) -> np.ndarray:
    """Full-range weights where sums are exact, else pair-safe ones."""
    q = rng.integers(-127, 128, layout.shape).astype(np.int8)
    if EXACT or layout.depthwise:
        return q
    matrix = np.asarray(layout.to_matrix(q), np.float64)
    return np.asarray(layout.from_matrix(repair(matrix, matrix, np.ones(1))), np.int8)


SCALES = st.floats(1e-4, 0.1)
ZEROS = st.integers(0, 255)


@BUDGET
@given(data=st.data())
def test_conv_equals_onnxruntime(data: st.DataObject) -> None:
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depthwise = draw(st.booleans())
    channels_in = groups * draw(st.integers(1, 5))
    channels_out = groups * draw(st.integers(1, 6))
    if depthwise:
        channels_in = channels_out = groups = draw(st.integers(1, 17))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    attributes = {
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "pads": draw(st.tuples(*[st.integers(0, 2)] * 4)),
        "dilations": draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])),
        "group": groups,
    }
    size = draw(st.tuples(st.integers(5, 11), st.integers(5, 11)))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, attributes["dilations"], strict=True)]
    pads = attributes["pads"]
    assume(size[0] + pads[0] + pads[2] >= reach[0] and size[1] + pads[1] + pads[3] >= reach[1])
    shape = (channels_out, channels_in // groups, *kernel)
    x_scale, zero_point, out_zero = draw(SCALES), draw(ZEROS), draw(ZEROS)
    graph = Graph((2, channels_in, *size), x_scale, zero_point)
    node = helper.make_node("Conv", ["a", "b"], ["c"], **attributes)
    layout = weight_layout(ir.from_proto(node), shape, 0)
    scales = rng.uniform(1e-3, 0.05, channels_out).astype(np.float32)
    inputs = ["x.dq", graph.weight("w", safe_weights(rng, layout), scales, 0)]
    spread = 2000.0 * float(np.sqrt(np.prod(shape[1:])))
    if draw(st.booleans()):
        bias = rng.normal(0, spread, channels_out).astype(np.int32)
        inputs.append(graph.weight("b", bias, np.float32(x_scale) * scales, 0))
    out = graph.add("Conv", inputs, "conv", **attributes)
    y_scale = x_scale * float(scales.mean()) * spread / 40
    clip = draw(st.sampled_from(["none", "relu", "clip"]))
    if clip == "relu":
        out, out_zero = graph.add("Relu", [out], "relu"), 0
    if clip == "clip":
        high = graph.constant("high", np.float32(255 * y_scale * 1.01))
        out, out_zero = graph.add("Clip", [out, graph.constant("low", np.float32(0)), high], "clip"), 0
    x = rng.integers(0, 256, (2, channels_in, *size)).astype(np.uint8)
    check(graph.model(graph.q(out, y_scale, out_zero)), x, "QLinearConv")


@BUDGET
@given(data=st.data())
def test_gemm_and_matmul_equal_onnxruntime(data: st.DataObject) -> None:
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows, inner, columns = draw(st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 40)))
    op = draw(st.sampled_from(["Gemm", "MatMul"]))
    transposed = op == "Gemm" and draw(st.booleans())
    quantized = op == "Gemm" and draw(st.booleans())
    x_scale = draw(SCALES)
    graph = Graph((rows, inner), x_scale, draw(ZEROS))
    layout = WeightLayout((columns, inner) if transposed else (inner, columns), 0 if transposed else 1, 1, None)
    scales = rng.uniform(1e-3, 0.05, columns).astype(np.float32)
    inputs = ["x.dq", graph.weight("w", safe_weights(rng, layout), scales, layout.axis)]
    attributes = {}
    if op == "Gemm":
        bias = rng.normal(0, 5000, columns).astype(np.int32)
        inputs.append(graph.weight("b", bias, np.float32(x_scale) * scales, 0))
        attributes = {"transB": int(transposed)}
    out = graph.add(op, inputs, "product", **attributes)
    x = rng.integers(0, 256, (rows, inner)).astype(np.uint8)
    if quantized:
        y_scale = x_scale * 0.02 * 60 * float(np.sqrt(inner))
        check(graph.model(graph.q(out, y_scale, draw(ZEROS))), x, "QGemm")
        return
    model = graph.model(out, TensorProto.FLOAT)
    # one float32 product of an exact sum and a scale, which kernels may associate differently: 2 ulp
    np.testing.assert_allclose(
        evaluate(model, {"x": x})[out], run(model, x, "QGemm" if op == "Gemm" else "MatMulIntegerToFloat"), rtol=2.5e-7
    )


@BUDGET
@example(seed=0, scales=(0.0625, 0.03125, 0.03), zeros=(48, 1, 0), op="Add", shape=(1, 3, 5, 7))  # a tie
@given(
    seed=st.integers(0, 10_000),
    scales=st.tuples(SCALES, SCALES, SCALES),
    zeros=st.tuples(ZEROS, ZEROS, ZEROS),
    op=st.sampled_from(["Add", "Mul"]),
    shape=st.sampled_from([(1, 3, 5, 7), (2, 8, 4, 4), (1, 1), (3, 37)]),
)
def test_add_and_mul_equal_onnxruntime(
    seed: int, scales: tuple[float, ...], zeros: tuple[int, ...], op: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    graph = Graph((2 * shape[0], *shape[1:]), scales[0], zeros[0])
    graph.nodes.clear()
    graph.constant("split", np.array([shape[0], shape[0]], np.int64))
    graph.nodes.append(helper.make_node("Split", ["x", "split"], ["a", "b"], axis=0))
    graph.dq("a", "a.dq", scales[0], np.uint8(zeros[0]))
    graph.dq("b", "b.dq", scales[1], np.uint8(zeros[1]))
    out = graph.add(op, ["a.dq", "b.dq"], "out")
    y_scale = scales[0] + scales[1] if op == "Add" else 100 * scales[0] * scales[1]
    x = rng.integers(0, 256, (2 * shape[0], *shape[1:])).astype(np.uint8)
    check(graph.model(graph.q(out, y_scale * (0.5 + scales[2] * 10), zeros[2])), x, f"QLinear{op}")


@BUDGET
@given(data=st.data())
def test_pools_and_tables_equal_onnxruntime(data: st.DataObject) -> None:
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    channels, size = draw(st.integers(1, 19)), draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    x_scale, zero_point = draw(SCALES), draw(ZEROS)
    op = draw(st.sampled_from(["GlobalAveragePool", "AveragePool", "MaxPool", "LeakyRelu", "Concat", "Flatten"]))
    graph = Graph((2, channels, *size), x_scale, zero_point)
    attributes: dict[str, Any] = {}
    inputs = ["x.dq"]
    if op in {"AveragePool", "MaxPool"}:
        attributes = {
            "kernel_shape": draw(st.tuples(st.integers(2, 3), st.integers(2, 3))),
            "strides": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
            "pads": draw(st.tuples(*[st.integers(0, 1)] * 4)),
        }
    if op == "AveragePool":
        attributes["count_include_pad"] = int(draw(st.booleans()))
    if op == "LeakyRelu":
        attributes = {"alpha": 0.1}
    if op == "Concat":
        attributes = {"axis": 1}
        graph.dq("x", "x2.dq", x_scale * 1.7, np.uint8(zero_point // 2))
        inputs.append("x2.dq")
    out = graph.add(op, inputs, "out", **attributes)
    share = op in {"MaxPool", "Flatten"}
    model = graph.model(graph.q(out, x_scale if share else x_scale * draw(st.floats(0.3, 3)), zero_point))
    check(model, rng.integers(0, 256, (2, channels, *size)).astype(np.uint8), op if share else f"QLinear{op}")


def test_an_overflowing_sum_is_an_error() -> None:
    graph = Graph((1, 2), 0.1, 0)
    weight = graph.weight("w", np.full((2, 1), 127, np.int8), np.ones(1, np.float32), 1)
    bias = graph.weight("b", np.array([2**31 - 1], np.int32), np.full(1, 0.1, np.float32), 0)
    model = graph.model(graph.add("Gemm", ["x.dq", weight, bias], "out"), TensorProto.FLOAT)
    with pytest.raises(QuantizationError, match="int32 sum overflows"):
        evaluate(model, {"x": np.full((1, 2), 255, np.uint8)})
