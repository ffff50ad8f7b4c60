"""Max pools on integers: the same numbers, with the Q ahead of the pool."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.pools import pool_integers_

SHAPE = ["N", 2, 7, 7]


def graph(scale: float = 0.05, zero: int = 90, *, second: str = "") -> onnx.ModelProto:
    """Return Relu -> MaxPool -> Q -> DQ -> two readers; `second` names a tensor that another operator reads, too."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "a"),
        helper.make_node("MaxPool", ["a"], ["p"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["p", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node("Neg", ["d"], ["y"], "y"),
        helper.make_node("Abs", ["d"], ["z"], "z"),
    ]
    made = ["y", "z"]
    if second:
        nodes.append(helper.make_node("Sin", [second], ["w"], "w"))
        made.append("w")
    constants = [
        numpy_helper.from_array(np.float32(scale), "scale"),
        numpy_helper.from_array(np.uint8(zero), "zero"),
    ]
    given_ = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "C", "H", "W"]) for name in made]
    inner = helper.make_graph(nodes, "pool", given_, outputs, constants)
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"x": x})
    return found


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 1.0), st.integers(0, 255), st.integers(0, 1000))
def test_maxima_and_rounding_commute(scale: float, zero: int, seed: int) -> None:
    before = onnx.shape_inference.infer_shapes(graph(scale, zero))
    model = ir.from_proto(before)
    assert pool_integers_(model) == ("pool",)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    sizes = {each.name: [size.dim_value for size in each.type.tensor_type.shape.dim] for each in after.graph.value_info}
    assert sizes["q"][2:] == sizes["d"][2:] == [7, 7]
    assert sizes["p"][2:] == [4, 4]
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.index("QuantizeLinear") < kinds.index("DequantizeLinear") < kinds.index("MaxPool")
    x = np.random.default_rng(seed).normal(0, 8, (2, 2, 7, 7)).astype(np.float32)
    for one, other in zip(run(before, x), run(after, x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("second", ["a", "p", "q"])
def test_what_something_else_reads_stays_where_it_is(second: str) -> None:
    if second == "q":  # integers that something else reads
        before = graph()
        before.graph.node.append(helper.make_node("Cast", ["q"], ["w"], "w", to=TensorProto.FLOAT))
        before.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["N", "C", "H", "W"]))
    else:
        before = graph(second=second)
    model = ir.from_proto(before)
    assert pool_integers_(model) == ()
    assert [node.op_type for node in ir.to_proto(model).graph.node] == [node.op_type for node in before.graph.node]
