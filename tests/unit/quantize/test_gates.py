"""HardSwish and HardSigmoid out of integer Add and Mul: what they compute, and what runs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.affine import params_for_range
from edgeft.quantize.calibration import Execution
from edgeft.quantize.gates import gate_integers_
from edgeft.quantize.insert import insert_pairs_
from edgeft.quantize.integer_reference import evaluate
from edgeft.quantize.plan import make_plan
from edgeft.quantize.qat_graph import TrainableGraph
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import ARM64, PLACEMENT

SIDE, CHANNELS = 6, 8
OPERATORS = st.sampled_from(["HardSwish", "HardSigmoid"])


def hard_sigmoid(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def graph(op_type: str, **attributes: float) -> onnx.ModelProto:
    """Return Conv -> `op_type` -> Conv -> Neg on float images."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 1.0, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "a"),
        helper.make_node(op_type, ["a"], ["g"], "g", **attributes),
        helper.make_node("Conv", ["g", "w2"], ["b"], "b"),
        helper.make_node("Neg", ["b"], ["y"], "y"),
    ]
    shape = ["N", CHANNELS, SIDE, SIDE]
    inner = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def built(
    op_type: str, ranges: dict[str, tuple[float, float]], *, signed: bool, **attributes: float
) -> onnx.ModelProto:
    """Return the graph with pairs on `ranges` and its gate built, down to the gate's own integers."""
    placement = ARM64 if signed else PLACEMENT
    model = ir.from_proto(onnx.shape_inference.infer_shapes(graph(op_type, **attributes)))
    plan = make_plan(model, placement)
    insert_pairs_(model, {name: params_for_range(*ends, placement.activation) for name, ends in ranges.items()})
    assert gate_integers_(model, plan, placement) == ("g",)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return onnx.utils.Extractor(onnx.shape_inference.infer_shapes(proto)).extract_model(
        ["a::q"], ["a::dq", "g::q", "g::dq"]
    )


@settings(max_examples=60, deadline=None)
@given(OPERATORS, st.floats(-9, -0.01), st.floats(0.01, 12), st.booleans())
def test_every_input_integer_gives_what_the_float_operator_rounds_to(
    op_type: str,
    low: float,
    high: float,
    signed: bool,  # noqa: FBT001 - drawn
) -> None:
    alpha, beta = (1 / 6, 0.5) if op_type == "HardSwish" else (0.25, 0.4)
    attributes = {} if op_type == "HardSwish" else {"alpha": alpha, "beta": beta}
    step = (high - low) / 255  # a zero point is rounded, so the grid may reach further
    reached = np.linspace(low - step, high + step, 1000)
    wanted = hard_sigmoid(reached, alpha, beta) * (reached if op_type == "HardSwish" else 1.0)
    ends = {"a": (low, high), "g": (float(wanted.min()), float(wanted.max()))}
    model = built(op_type, ends, signed=signed, **attributes)
    integers = np.arange(256).reshape(1, 1, 16, 16) - (128 if signed else 0)
    fed = {"a::q": np.broadcast_to(integers, (1, CHANNELS, 16, 16)).astype(np.int8 if signed else np.uint8)}
    for size in (4, 3):
        for each in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            if len(each.type.tensor_type.shape.dim) > size - 1 > 1:
                each.type.tensor_type.shape.dim[size - 1].Clear()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x, found, real = session.run(None, fed)
    if not signed:  # on x86 int8 runs in float, where a tie may fall otherwise
        np.testing.assert_array_equal(found, evaluate(model, fed, ["g::q"])["g::q"])
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    step = float(arrays["g::scale"])
    exact = hard_sigmoid(x, alpha, beta) * (x if op_type == "HardSwish" else 1.0)
    rounded_gate = np.abs(x) / 510 if op_type == "HardSwish" else 0.0
    np.testing.assert_array_less(np.abs(real - exact), step / 2 + rounded_gate + 1e-4)


@pytest.mark.parametrize("op_type", ["HardSwish", "HardSigmoid"])
def test_nothing_between_two_convolutions_runs_in_float(
    op_type: str, operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    data = np.random.default_rng(1).normal(0, 2, (32, CHANNELS, SIDE, SIDE)).astype(np.float32)
    made = quantize_static(graph(op_type), PLACEMENT, data, static_method("minmax", 8), execution=Execution())
    assert [skip.layer for skip in made.skips] == ["y"]
    kinds = operators_run(made.model)
    assert "HardSigmoid" not in kinds
    assert kinds.count("QLinearAdd") == 1
    assert kinds.count("QLinearMul") == (op_type == "HardSwish")
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    x = np.random.default_rng(2).normal(0, 2, (16, CHANNELS, SIDE, SIDE)).astype(np.float32)
    true, own = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for each in (graph(op_type), made.model)
    )
    assert np.square(own - true).mean() < 2e-3 * np.square(true).mean()


def test_a_target_without_the_rule_keeps_it_in_float(operators_run: Callable[[onnx.ModelProto], list[str]]) -> None:
    data = np.random.default_rng(1).normal(0, 2, (32, CHANNELS, SIDE, SIDE)).astype(np.float32)
    made = quantize_static(graph("HardSwish"), replace(PLACEMENT, gates=()), data, static_method("minmax", 8))
    assert [skip.layer for skip in made.skips] == ["g", "y"]
    assert "HardSigmoid" in operators_run(made.model)


def test_training_leaves_the_grids_of_a_gate_alone() -> None:
    data = np.random.default_rng(1).normal(0, 2, (32, CHANNELS, SIDE, SIDE)).astype(np.float32)
    for op_type in ("HardSwish", "HardSigmoid"):
        made = quantize_static(graph(op_type), PLACEMENT, data, static_method("minmax", 8), execution=Execution())
        trainable = TrainableGraph(made.model, PLACEMENT)
        assert not [name for name in trainable.scales if "gate" in name or "wide" in name]
        assert "a::scale" in trainable.scales
        trainable.project_()
        back = trainable.write_back()
        x = data[:4]
        first, second = (
            ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for each in (made.model, back)
        )
        np.testing.assert_array_equal(first, second)
