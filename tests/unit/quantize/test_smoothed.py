"""SmoothQuant in a float graph: the same numbers, flatter activations; and inputs with a sign."""

import dataclasses
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.calibration import Execution
from edgeft.quantize.placement import IntegerType, OpRule, OutputRule, Placement, TensorType
from edgeft.quantize.plan import make_plan
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.smoothed import smooth_
from edgeft.quantize.static import quantize_static, static_method

K, OUT, OUTLIER = 24, 20, 3
PLACEMENT = Placement(
    target="toy",
    activation=TensorType(IntegerType.U8, symmetric=False),
    weight=TensorType(IntegerType.S8, symmetric=True),
    bias=None,
    rules=(
        OpRule("MatMul", (0,), OutputRule.FLOAT, weight=1, weight_axis=1),
        OpRule("Gemm", (0,), OutputRule.FLOAT, weight=1, weight_axis=1, weight_axis_transposed=0, bias=2),
    ),
    float_outputs=("y",),
    smooths=True,
    signed=("MatMul",),
)


def graph(*, transposed: bool = False, outlier: float = 60.0) -> onnx.ModelProto:
    """Return two products of one tensor with an outlying channel, and their attention-like product."""
    rng = np.random.default_rng(0)
    shape = (OUT, K) if transposed else (K, OUT)
    gain = np.ones(K, np.float32)
    gain[OUTLIER] = outlier
    arrays = {
        "gain": gain,
        "w1": rng.standard_normal(shape).astype(np.float32),
        "w2": rng.standard_normal((K, OUT)).astype(np.float32),
        "bias": rng.standard_normal(OUT).astype(np.float32),
    }
    first = (
        helper.make_node("Gemm", ["h", "w1", "bias"], ["a"], "a", transB=1)
        if transposed
        else helper.make_node("MatMul", ["h", "w1"], ["a"], "a")
    )
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["h"], "h"),
        first,
        helper.make_node("MatMul", ["h", "w2"], ["b"], "b"),
        helper.make_node("Transpose", ["b"], ["bt"], "bt", perm=[1, 0]),
        helper.make_node("MatMul", ["a", "bt"], ["y"], "y"),
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", K])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "M"])]
    inner = helper.make_graph(nodes, "products", given, made, constants)
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def rows(seed: int, count: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, K)).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> Any:  # noqa: ANN401 - float arrays
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("transposed", [False, True])
def test_smoothing_changes_no_number_but_what_products_read(*, transposed: bool) -> None:
    before = graph(transposed=transposed)
    model = ir.from_proto(before)
    assert smooth_(model, make_plan(model, PLACEMENT), ArrayRows("x", rows(1)), Execution(1, 8)) == ("h",)
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    x = rows(2)
    expected = run(before, x)
    np.testing.assert_allclose(run(after, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    (divided,) = [node for node in after.graph.node if node.name == "h::smoothed"]
    readers = [node.op_type for node in after.graph.node if divided.output[0] in node.input]
    assert sorted(readers) == (["Gemm", "MatMul"] if transposed else ["MatMul", "MatMul"])
    (inverse,) = [numpy_helper.to_array(each) for each in after.graph.initializer if each.name == "h::smooth"]
    assert inverse.argmin() == OUTLIER  # the outlier is what is made smaller


def test_what_stays_float_is_not_smoothed() -> None:
    model = ir.from_proto(graph())
    plan = make_plan(model, PLACEMENT, {"a": "kept"})
    assert smooth_(model, plan, ArrayRows("x", rows(1)), Execution(1, 8)) == ("h",)
    inputs = {node.name: list(node.input) for node in ir.to_proto(model).graph.node}
    assert inputs["a"] == ["h", "w1"]
    assert inputs["b"][0] == "h::smoothed::y"


def test_what_gains_little_costs_no_multiplication() -> None:
    model = ir.from_proto(graph(outlier=1.0))
    assert smooth_(model, make_plan(model, PLACEMENT), ArrayRows("x", rows(1)), Execution(1, 8)) == ()
    assert ir.to_proto(model) == ir.to_proto(ir.from_proto(graph(outlier=1.0)))


def test_smoothed_integers_are_nearer_to_float() -> None:
    model, x = graph(), rows(3)
    expected = run(model, x)
    errors = {}
    for smooths in (True, False):
        placement = dataclasses.replace(PLACEMENT, smooths=smooths)
        made = quantize_static(model, placement, rows(1), static_method("auto", 32, transformer=True)).model
        errors[smooths] = float(np.abs(run(made, x) - expected).mean())
    assert errors[True] < errors[False] / 2


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(-1.0, 1.0, TensorProto.INT8), (-0.2, 1.0, TensorProto.UINT8), (-1.0, 0.1, TensorProto.UINT8)],
)
def test_a_type_with_a_sign_where_both_signs_are_as_large(low: float, high: float, kind: int) -> None:
    data = np.clip(rows(1), low, high)
    made = quantize_static(graph(), PLACEMENT, data, static_method("minmax", 0)).model
    kinds = {each.name: each.data_type for each in made.graph.initializer}
    assert [kinds[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"] == [kind]
    plain = dataclasses.replace(PLACEMENT, signed=())
    made = quantize_static(graph(), plain, data, static_method("minmax", 0)).model
    kinds = {each.name: each.data_type for each in made.graph.initializer}
    assert [kinds[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"] == [TensorProto.UINT8]
