"""Equalisation: the float graph stays what it was, and the channels between convolutions fill their common scale."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.events import ignore
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.equalise import _statistics, equalise_, find_junctions
from edgeft.quantize.rows import ArrayRows, tensors_of
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

CHANNELS, EXECUTION = 8, Execution(1, 8)


def chain(act: str, *, depthwise: bool, spread: float = 100.0) -> onnx.ModelProto:
    """Conv, `act`, a depthwise or a dense Conv; the channels between differ by up to `spread` in size."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1 / spread, 1, CHANNELS).reshape(-1, 1, 1, 1)
    second = (CHANNELS, 1 if depthwise else CHANNELS, 3, 3)
    arrays = {
        "one.w": rng.normal(size=(CHANNELS, 3, 3, 3)) * sizes,
        "one.b": rng.normal(size=CHANNELS) * sizes.ravel(),
        "two.w": rng.normal(size=second) / (1 if depthwise else sizes[None, :, 0]),
        "low": np.array(0.0),
        "high": np.array(6.0),
    }
    node = helper.make_node
    middle = {
        "Relu": [node("Relu", ["one"], ["act"], "act")],
        "Clip": [node("Clip", ["one", "low", "high"], ["act"], "act")],
        "none": [node("Identity", ["one"], ["act"], "act")],
    }[act]
    group = CHANNELS if depthwise else 1
    nodes = [
        node("Conv", ["x", "one.w", "one.b"], ["one"], "one"),
        *([] if act == "none" else middle),
        node("Conv", ["one" if act == "none" else "act", "two.w"], ["logits"], "two", group=group),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 10, 10])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CHANNELS, 6, 6])
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", [x], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rows(count: int, seed: int = 0) -> ArrayRows:
    return ArrayRows("x", np.random.default_rng(seed).normal(size=(count, 3, 10, 10)).astype(np.float32))


def equalised(model: onnx.ModelProto, data: ArrayRows) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    graph = ir.from_proto(model)
    changed = tuple(equalise_(graph, data, EXECUTION))
    return ir.to_proto(graph), changed


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("act", ["Relu", "Clip", "none"])
def test_the_float_graph_computes_what_it_computed(act: str, depthwise: bool) -> None:  # noqa: FBT001
    model = chain(act, depthwise=depthwise)
    made, changed = equalised(model, rows(64))
    assert changed == ("one" if act == "none" else "act",)
    unseen = rows(64, seed=1)
    expected, found = (logits_of(each, unseen, EXECUTION) for each in (model, made))
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert off < (0.02 if act == "Clip" else 1e-5)  # a value beyond the headroom of its channel is clipped


def test_a_depthwise_reader_gets_channels_that_fill_the_range() -> None:
    model, data = chain("Relu", depthwise=True, spread=30), rows(64)
    made, _ = equalised(model, data)
    (values,) = zip(*tensors_of(made, ["act"], data, Execution(1, 64)), strict=True)
    largest = values[0].max(axis=(0, 2, 3))
    np.testing.assert_allclose(largest, largest.max(), rtol=1e-4)


def test_a_clipped_channel_is_left_alone() -> None:
    model, data = chain("Clip", depthwise=True), rows(64)
    made, _ = equalised(model, data)
    before, after = (next(t for t in each.graph.initializer if t.name == "one.w") for each in (model, made))
    ratio = numpy_helper.to_array(after) / numpy_helper.to_array(before)
    assert ratio.min() == 1  # the largest channels reach 6
    assert ratio.max() > 10


@pytest.mark.parametrize("depthwise", [True, False])
def test_int8_loses_less(depthwise: bool) -> None:  # noqa: FBT001
    model, data = chain("Relu", depthwise=depthwise), rows(64)
    made, _ = equalised(model, data)
    unseen = rows(64, seed=1)
    expected = logits_of(model, unseen, EXECUTION)
    errors = []
    for each in (model, made):
        quantized = quantize_static(each, PLACEMENT, data.values, static_method("minmax", 32), execution=EXECUTION)
        found = logits_of(quantized.model, unseen, EXECUTION)
        errors.append(float((np.square(found - expected).mean(axis=(0, 2, 3)) / expected.var(axis=(0, 2, 3))).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_what_two_read_or_share_is_no_junction(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    """In the net, stem.clip feeds a residual, too; dw to pw is the one junction."""
    assert [junction.tensor.name for junction in find_junctions(ir.from_proto(net))] == ["dw.relu"]
    shared = onnx.ModelProto()
    shared.CopyFrom(net)
    nodes = {node.name: node for node in shared.graph.node}
    nodes["dw"].input[2] = "stem.b"
    assert list(find_junctions(ir.from_proto(shared))) == []
    made = quantize_static(net, PLACEMENT, pixels(32), static_method("gptq", 16), execution=Execution())
    x = ArrayRows("pixels", pixels(16, seed=4))
    expected, found = (logits_of(each, x, Execution()) for each in (net, made.reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_equalisation_sees_every_window_of_an_image() -> None:
    """The large value of channel 0 lies in the last of four windows that are folded into the batch."""
    rng = np.random.default_rng(0)
    arrays = {"a.w": np.eye(8, 3).reshape(8, 3, 1, 1), "b.w": rng.normal(size=(8, 8, 1, 1)) / 8}
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    initializers.append(numpy_helper.from_array(np.array([-1, 3, 4, 4]), "windows"))
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "windows"], ["w"], "w"),
        node("Conv", ["w", "a.w"], ["a"], "a"),
        node("Conv", ["a", "b.w"], ["b"], "b"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 3, 4, 4])
    b = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "windows", [x], [b], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    values = rng.normal(size=(6, 4, 3, 4, 4)).astype(np.float32)
    values[:, 3, 0] *= 100
    found = _statistics(ir.from_proto(model), ["a"], ArrayRows("x", values), EXECUTION, ignore)["a"]
    by_channel = values.transpose(2, 0, 1, 3, 4).reshape(3, -1)
    np.testing.assert_array_equal(found.high[:3], by_channel.max(axis=1))
    np.testing.assert_array_equal(found.low[:3], by_channel.min(axis=1))
    np.testing.assert_allclose(found.squares[:3], np.square(by_channel.astype(np.float64)).mean(axis=1), rtol=1e-6)
