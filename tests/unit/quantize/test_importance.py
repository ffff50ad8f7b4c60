import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.importance import channel_importance, squared_columns
from edgeft.quantize.plan import Plan, make_plan
from edgeft_exporters.onnx.placement import PLACEMENT

Attributes = dict[str, int | list[int]]


def planned(net: onnx.ModelProto) -> Plan:
    return make_plan(ir.from_proto(onnx.shape_inference.infer_shapes(net)), PLACEMENT)


def one_layer(op: str, x: list[int], weight: tuple[int, ...], **attributes: int | list[int]) -> onnx.ModelProto:
    array = np.random.default_rng(0).normal(size=weight).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes), helper.make_node("Identity", ["y"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *x])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("op", "x", "weight", "attributes"),
    [
        ("Conv", [5, 7, 7], (4, 5, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", [6, 7, 7], (8, 3, 3, 2), {"pads": [1, 1, 1, 1], "group": 2}),
        ("Conv", [5, 7, 7], (5, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 5}),
        ("Gemm", [6], (6, 3), {}),
        ("Gemm", [6], (3, 6), {"transB": 1}),
        ("MatMul", [4, 6], (6, 3), {}),
    ],
)
def test_a_channel_costs_what_one_impulse_in_it_gives(
    op: str, x: list[int], weight: tuple[int, ...], attributes: Attributes
) -> None:
    """The squared norm of the runtime's answer to a 1 in one place of one channel, away from the border."""
    net = one_layer(op, x, weight, **attributes)
    (layer,) = planned(net).weighted
    session = ort.InferenceSession(net.SerializeToString())
    channels = x[0] if op == "Conv" else x[-1]
    impulses = np.zeros((channels, *x), np.float32)
    for channel in range(channels):
        place = (channel, 3, 3) if op == "Conv" else (*[0] * (len(x) - 1), channel)
        impulses[(channel, *place)] = 1
    answers = session.run(None, {"x": impulses})[0].reshape(channels, -1)
    np.testing.assert_allclose(squared_columns(layer), (answers.astype(np.float64) ** 2).sum(axis=1), rtol=1e-5)


def test_tensors_are_weighted_by_the_layers_that_read_them(net: onnx.ModelProto) -> None:
    plan = planned(net)
    found = channel_importance(plan)
    assert list(found) == list(plan.observed)
    assert {tensor for tensor, importance in found.items() if importance is not None} == {"stem.clip", "dw.relu"}
    for importance in (found["stem.clip"], found["dw.relu"]):
        assert importance is not None
        assert importance.axis == 1
        assert importance.weights.dtype == np.int64
        assert importance.weights.max() == 65_535
        assert importance.weights.min() >= 1


def test_several_readers_add_up() -> None:
    rng = np.random.default_rng(1)
    arrays = {name: rng.normal(size=(4, 3, 1, 1)).astype(np.float32) for name in ("a", "b")}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", name], [f"y{name}"]) for name in arrays]
        + [helper.make_node("Add", ["ya", "yb"], ["y"]), helper.make_node("Identity", ["y"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    importance = channel_importance(planned(net))["x"]
    assert importance is not None
    cost = sum((array.astype(np.float64) ** 2).sum(axis=(0, 2, 3)) for array in arrays.values())
    np.testing.assert_array_equal(importance.weights, np.rint(cost / cost.max() * 65_535))


def test_readers_whose_weights_are_zero_make_all_channels_alike(net: onnx.ModelProto) -> None:
    tensor = next(t for t in net.graph.initializer if t.name == "dw.w")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros((8, 1, 3, 3), np.float32), "dw.w"))
    assert channel_importance(planned(net))["stem.clip"] is None


def test_readers_along_different_axes_make_all_channels_alike() -> None:
    arrays = {"conv": np.ones((2, 3, 1, 1), np.float32), "rows": np.ones((5, 2), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv"], ["c"]),
            helper.make_node("Identity", ["c"], ["out"]),
            helper.make_node("MatMul", ["x", "rows"], ["m"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("out", "m")],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert {op.node.op_type for op in planned(net).weighted} == {"Conv", "MatMul"}
    assert channel_importance(planned(net))["x"] is None
