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

from edgeft.parity.align import align
from edgeft.parity.grids import grids
from edgeft.parity.split import without_rounding
from edgeft.parity.told import _swapped
from edgeft.quantize.affine import params_for_range
from edgeft.quantize.calibration import Execution
from edgeft.quantize.gates import gate_integers_, gate_params
from edgeft.quantize.insert import insert_pairs_
from edgeft.quantize.integer_reference import evaluate
from edgeft.quantize.plan import make_plan
from edgeft.quantize.qat import QatMethod, tune
from edgeft.quantize.qat_graph import TrainableGraph
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import ARM64, PLACEMENT

SIDE, CHANNELS = 6, 8
DATA = np.random.default_rng(1).normal(0, 2, (32, CHANNELS, SIDE, SIDE)).astype(np.float32)
UNSEEN = np.random.default_rng(2).normal(0, 2, (16, CHANNELS, SIDE, SIDE)).astype(np.float32)
OPERATORS = st.sampled_from(["HardSwish", "HardSigmoid"])


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


def answers(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def built(op_type: str, low: float, high: float, *, signed: bool, **attributes: float) -> onnx.ModelProto:
    """Return the gate alone, built: from the integers of [low, high] to its own, "integers", and what they are, "g"."""
    placement = ARM64 if signed else PLACEMENT
    model = ir.from_proto(onnx.shape_inference.infer_shapes(graph(op_type, **attributes)))
    plan = make_plan(model, placement)
    step = (high - low) / 255  # a zero point is rounded, so the grid may reach further
    reached = np.linspace(low - step, high + step, 1000)
    made = wanted(op_type, reached, **attributes)
    params = {name: params_for_range(*ends, placement.activation) for name, ends in
              {"a": (low, high), "g": (float(made.min()), float(made.max()))}.items()}  # fmt: skip
    insert_pairs_(model, params | gate_params(plan, placement))
    assert gate_integers_(model, plan, placement) == ("g",)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    end, integers = ("g::dq", "g::q") if op_type == "HardSwish" else ("g", "g::gate::q")
    alone = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(proto)).extract_model(["a::q"], ["a::dq", end])
    alone.graph.output.append(
        onnx.helper.make_tensor_value_info(integers, alone.graph.input[0].type.tensor_type.elem_type, None)
    )
    for each in (alone.graph.input[0], *alone.graph.output[:2], *alone.graph.value_info):
        each.type.tensor_type.ClearField("shape")
    return alone


def wanted(op_type: str, x: np.ndarray, alpha: float = 1 / 6, beta: float = 0.5) -> np.ndarray:
    gate = np.clip(alpha * x + beta, 0.0, 1.0)
    return gate * x if op_type == "HardSwish" else gate


@settings(max_examples=60, deadline=None)
@given(OPERATORS, st.floats(-9, -0.01), st.floats(0.01, 12), st.booleans(), st.floats(0.05, 0.9), st.floats(0.05, 1.5))
def test_every_input_integer_gives_what_the_float_operator_rounds_to(
    op_type: str,
    low: float,
    high: float,
    signed: bool,  # noqa: FBT001 - drawn
    alpha: float,
    beta: float,
) -> None:
    attributes = {} if op_type == "HardSwish" else {"alpha": alpha, "beta": beta}
    model = built(op_type, low, high, signed=signed, **attributes)
    fed = {"a::q": (np.arange(256) - (128 if signed else 0)).astype(np.int8 if signed else np.uint8)[None, None]}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x, real, integers = session.run(None, fed)
    if not signed:  # on x86 int8 runs in float, where a tie may fall otherwise
        name = model.graph.output[2].name
        np.testing.assert_array_equal(integers, evaluate(model, fed, [name])[name])
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    step = float(arrays["g::scale"]) if op_type == "HardSwish" else 1 / 255
    rounded_gate = np.abs(x) / 510 if op_type == "HardSwish" else 0.0
    error = np.abs(real - wanted(op_type, x, **attributes))
    np.testing.assert_array_less(error, step / 2 + rounded_gate + 1e-4)


@pytest.mark.parametrize("op_type", ["HardSwish", "HardSigmoid"])
def test_nothing_between_two_convolutions_runs_in_float(
    op_type: str, operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    made = quantize_static(graph(op_type), PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    assert [skip.layer for skip in made.skips] == ["y"]
    kinds = operators_run(made.model)
    assert "HardSigmoid" not in kinds
    assert kinds.count("QLinearAdd") == 1
    assert kinds.count("QLinearMul") == (op_type == "HardSwish")
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    true, own = answers(graph(op_type), UNSEEN), answers(made.model, UNSEEN)
    assert np.square(own - true).mean() < 2e-3 * np.square(true).mean()


def test_a_target_without_the_rule_keeps_it_in_float(operators_run: Callable[[onnx.ModelProto], list[str]]) -> None:
    made = quantize_static(graph("HardSwish"), replace(PLACEMENT, gates=()), DATA, static_method("minmax", 8))
    assert [skip.layer for skip in made.skips] == ["g", "y"]
    assert "HardSigmoid" in operators_run(made.model)


def behind_a_move() -> onnx.ModelProto:
    """Return the HardSigmoid graph with a Transpose of the gate ahead of the second convolution."""
    moved = graph("HardSigmoid")
    moved.graph.node.insert(2, helper.make_node("Transpose", ["g"], ["t"], "t", perm=[0, 1, 3, 2]))
    moved.graph.node[3].input[0] = "t"
    return moved


@pytest.mark.parametrize(
    "model", [graph("HardSwish"), graph("HardSigmoid"), behind_a_move()], ids=["swish", "sigmoid", "moved"]
)
def test_training_leaves_the_grids_of_a_gate_alone(model: onnx.ModelProto) -> None:
    made = quantize_static(model, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    trainable = TrainableGraph(made.model, PLACEMENT)
    assert "a::scale" in trainable.scales
    assert not {"g::gate::wide", "g::gate::scale"} & set(trainable.scales)
    assert ("g::scale" in trainable.scales) == (model.graph.node[1].op_type == "HardSwish")


def test_a_graph_with_gates_is_trained_to_follow_float_where_a_segment_ends_in_one() -> None:
    model = graph("HardSwish")
    made = quantize_static(model, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    method = QatMethod(steps=60, rate=0.05, scale_rate=1e-3, tensors=("y", "g"), threads=2)
    tuned = tune(made.model, model, PLACEMENT, DATA, method, rng=np.random.default_rng(0))
    before, after = (
        np.abs(answers(each, UNSEEN) - answers(model, UNSEEN)).mean() for each in (made.model, tuned.model)
    )
    assert after < before
    assert tuned.unsafe_pairs == 0


@pytest.mark.parametrize("follower", ["Relu", "Clip"])
def test_a_clip_behind_a_gate_stays_what_it_is(follower: str) -> None:
    model = graph("HardSigmoid")
    limits = [numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0.0), ("high", 0.4))]
    model.graph.initializer.extend(limits if follower == "Clip" else [])
    inputs = ["g", "low", "high"] if follower == "Clip" else ["g"]
    model.graph.node.insert(2, helper.make_node(follower, inputs, ["c"], "c"))
    model.graph.node[3].input[0] = "c"
    made = quantize_static(model, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    true, own = answers(model, UNSEEN), answers(made.model, UNSEEN)
    assert np.square(own - true).mean() < 2e-3 * np.square(true).mean()


@pytest.mark.parametrize("factors", [{"alpha": 0.0}, {"alpha": -0.2}, {"beta": 0.0}])
def test_factors_that_no_grid_stands_for_stay_in_float(factors: dict[str, float]) -> None:
    made = quantize_static(graph("HardSigmoid", **factors), PLACEMENT, DATA, static_method("minmax", 8))
    reasons = {skip.layer: skip.reason for skip in made.skips}
    assert reasons["g"] == "an integer HardSigmoid needs alpha and beta above 0"


def test_the_layer_behind_a_gate_is_told_the_gates_own_grid() -> None:
    flat = graph("HardSigmoid", alpha=0.02)  # calibration sees less than [0, 1]
    made = quantize_static(flat, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    arrays = {each.name: numpy_helper.to_array(each) for each in made.model.graph.initializer}
    (layer,) = [node for node in made.model.graph.node if node.name == "b"]
    weight, bias = (next(n for n in made.model.graph.node if layer.input[at] in n.output) for at in (1, 2))
    np.testing.assert_allclose(arrays[bias.input[1]], arrays[weight.input[1]] / 255, rtol=1e-6)


@pytest.mark.parametrize("model", [graph("HardSwish"), graph("HardSigmoid"), graph("HardSigmoid", alpha=1.0)])
def test_rounding_alone_is_taken_out_of_a_graph_with_gates(model: onnx.ModelProto) -> None:
    made = quantize_static(model, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    for kept in ({}, grids(made.model)):
        plain = without_rounding(made.model, kept)
        assert plain is not None
        true, own = answers(model, UNSEEN[:1]), answers(plain, UNSEEN[:1])
        assert np.square(own - true).mean() < 2e-3 * np.square(true).mean()


def test_a_built_gate_is_no_swapped_activation_and_its_layers_are_judged() -> None:
    model = graph("HardSwish")
    made = quantize_static(model, PLACEMENT, DATA, static_method("minmax", 8), execution=Execution())
    named = {pair.name: pair for pair in align(model, made.model)}
    assert named["g"].integer
    assert not _swapped(model, made.model)
