"""Relu for HardSwish and SiLU: which operators are meant, which are not, and what the graph computes afterwards."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.graph.execute import open_session
from edgeft.graph.passes.swap_activations import swap_activations_


def graph(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    built = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [2, 3])], [value("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.float32(2), "two")],
    )  # fmt: skip
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(op_type: str, made: str, *inputs: str, **attributes: float) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [made], made, **attributes)


ACTIVATIONS = {
    "hardswish": [node("HardSwish", "y", "x")],
    "silu": [node("Sigmoid", "s", "x"), node("Mul", "y", "x", "s")],
    "silu, gate first": [node("Sigmoid", "s", "x"), node("Mul", "y", "s", "x")],
    "decomposed hardswish": [node("HardSigmoid", "s", "x", alpha=1 / 6, beta=0.5), node("Mul", "y", "x", "s")],
}


@pytest.mark.parametrize("nodes", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_it_becomes_a_relu_and_its_gate_goes(nodes: list[onnx.NodeProto]) -> None:
    proto = graph(nodes)
    model = ir.from_proto(proto)
    assert swap_activations_(model).changed == ("y",)
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    assert [each.op_type for each in made.graph.node] == ["Relu"]
    x = np.linspace(-8, 8, 6, dtype=np.float32).reshape(2, 3)
    before, after = (open_session(each, 1).run(None, {"x": x})[0] for each in (proto, made))
    np.testing.assert_array_equal(after, np.maximum(x, 0))
    assert np.abs(after - before).max() < 0.38
    assert not swap_activations_(model)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", "d", "x", "two"), node("Sigmoid", "s", "d"), node("Mul", "y", "x", "s")],  # a gate of another
        [node("Sigmoid", "s", "x"), node("Add", "y", "x", "s")],
        [node("Mul", "y", "x", "x")],
        [node("Sigmoid", "y", "x")],
    ],
)
def test_gates_and_products_of_others_stay(nodes: list[onnx.NodeProto]) -> None:
    model = ir.from_proto(graph(nodes))
    assert not swap_activations_(model)
    assert [each.op_type for each in ir.to_proto(model).graph.node] == [each.op_type for each in nodes]


def test_a_gate_with_another_reader_stays() -> None:
    nodes = [node("Sigmoid", "s", "x"), node("Mul", "m", "x", "s"), node("Add", "y", "m", "s")]
    model = ir.from_proto(graph(nodes))
    assert swap_activations_(model).changed == ("m",)
    assert [each.op_type for each in ir.to_proto(model).graph.node] == ["Sigmoid", "Relu", "Add"]
