"""float16 for the rest of a Q/DQ graph: types, numbers, and what stays float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.core.errors import EdgeftError
from edgeft.graph.execute import open_session
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.conformance import lint
from edgeft_exporters.tensorrt.half import half_
from edgeft_exporters.tensorrt.placement import PLACEMENT

Pixels = Callable[[int], np.ndarray]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def typed(model: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def halved(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    graph = typed(model)
    report = half_(graph)
    assert report.name == "half"
    made = ir.to_proto(graph)
    onnx.checker.check_model(made, full_check=True)
    return made, {refusal.node: refusal.reason for refusal in report.refused}


@pytest.fixture
def int8(residual: onnx.ModelProto, pixels: Pixels) -> onnx.ModelProto:
    return quantize_static(residual, PLACEMENT, pixels(32), static_method("minmax", 16)).model


def test_what_lies_between_pixels_and_logits_is_float16(int8: onnx.ModelProto) -> None:
    made, refused = halved(int8)
    found = types(made)
    for name in (
        "stem",
        "stem.relu",
        "a1",
        "a1.relu",
        "a2",
        "a.sum",
        "b.down",
        "b.sum",
        "a1.relu::dq",
        "a1::weight::dq",
    ):
        assert found[name] == HALF, name
    for name in ("x", "logits", "scores"):
        assert found[name] == FLOAT, name
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    by_output = {node.output[0]: node for node in made.graph.node}
    assert arrays[by_output["a1"].input[2]].dtype == np.float16
    assert {"head", "scores", "scaled"} <= set(refused)
    assert "a1" not in refused


def test_a_q_and_its_dq_have_the_same_scale_in_the_types_of_what_they_read_and_feed(int8: onnx.ModelProto) -> None:
    made, _ = halved(int8)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    found = types(made) | {"pixels": TensorProto.UINT8}
    quantizers = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    for q in quantizers:
        dq = next(
            node for node in made.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == q.output[0]
        )
        first, second = arrays[q.input[1]], arrays[dq.input[1]]
        assert float(first) == float(second)
        assert first.dtype == (np.float16 if found[q.input[0]] == HALF else np.float32)
        assert float(np.float16(first)) == float(first)


def test_a_second_run_changes_nothing(int8: onnx.ModelProto) -> None:
    made, _ = halved(int8)
    graph = typed(made)
    report = half_(graph)
    assert report.changed == ()
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == ir.to_proto(typed(made)).SerializeToString(
        deterministic=True
    )


def test_answers_stay_near_float_and_equal_onnx_own_evaluator(
    residual: onnx.ModelProto, int8: onnx.ModelProto, pixels: Pixels
) -> None:
    made, x = halved(int8)[0], {"pixels": pixels(24)}
    expected = open_session(residual, 1).run(None, x)[0]
    by_node = open_session(made, 1, optimise=False).run(None, x)[0]
    reference = np.asarray(ReferenceEvaluator(made).run(None, x)[0])
    assert by_node.dtype == np.float32
    np.testing.assert_allclose(by_node, reference, atol=5e-3)  # float16 sums in another order: single ties move
    assert np.abs(by_node - expected).max() < 0.03


def test_lowering_makes_an_int8_graph_half_and_leaves_a_float_one_alone(
    residual: onnx.ModelProto, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    for name, model, expected in (("float", residual, FLOAT), ("int8", int8, HALF)):
        onnx.save(model, tmp_path / f"{name}.onnx")
        lowered = onnx.load(TensorRtExporter().lower(tmp_path / f"{name}.onnx", tmp_path / name)[0])
        assert types(lowered)["a.sum"] == expected


def test_an_older_opset_is_brought_up_and_lowering_again_changes_nothing(tmp_path: Path) -> None:
    model = layer(RELU, {})
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "old.onnx")
    first = TensorRtExporter().lower(tmp_path / "old.onnx", tmp_path / "first")[0]
    again = TensorRtExporter().lower(first, tmp_path / "again")[0]
    assert onnx.load(first).opset_import[0].version == 19
    assert types(onnx.load(first))["a"] == HALF
    assert again.read_bytes() == first.read_bytes()


def op(op_type: str, made: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [made], made, **attributes)


def layer(
    middle: list[onnx.NodeProto], arrays: dict[str, np.ndarray], *, reach: float = 1.0, weight: float = 0.01
) -> onnx.ModelProto:
    """Return x -> Conv a -> `middle` -> r -> Q -> DQ -> Conv b -> Relu c -> Relu y."""
    numbers = {
        "one": np.float32(1 / 127),
        "zero": np.int8(0),
        "r.scale": np.float32(reach / 127),
        "w": np.ones((16, 16, 1, 1), np.int8),
        "w.s": np.full(16, weight, np.float32),
        "w.z": np.zeros(16, np.int8),
    }
    nodes = [
        *(op("QuantizeLinear", "x.q", "x", "one", "zero"), op("DequantizeLinear", "x.dq", "x.q", "one", "zero")),
        *(op("DequantizeLinear", "wa", "w", "w.s", "w.z", axis=0), op("Conv", "a", "x.dq", "wa")),
        *middle,
        *(
            op("QuantizeLinear", "r.q", "r", "r.scale", "zero"),
            op("DequantizeLinear", "r.dq", "r.q", "r.scale", "zero"),
        ),
        *(op("DequantizeLinear", "wb", "w", "w.s", "w.z", axis=0), op("Conv", "b", "r.dq", "wb")),
        *(op("Relu", "c", "b"), op("Relu", "y", "c")),
    ]
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (numbers | arrays).items()]
    graph = helper.make_graph(nodes, "layer", [value("x", 1, ["N", 16, 4, 4])], [value("y", 1, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


RELU = [op("Relu", "r", "a")]


def test_an_ordinary_layer_is_float16_to_its_last_operator() -> None:
    made, refused = halved(layer(RELU, {}))
    assert set(refused) == {"y"}
    assert {name: types(made)[name] for name in ("a", "r", "b", "c", "y")} == {
        **dict.fromkeys("arbc", HALF),
        "y": FLOAT,
    }


@pytest.mark.parametrize(
    ("middle", "arrays", "stays", "reason"),
    [
        ([op("Mul", "r", "a", "k")], {"k": np.full((1, 16, 1, 1), 1e5, np.float32)}, "r", "reaches 1e+05"),
        ([op("Add", "r", "a", "k")], {"k": np.float32(1e-12)}, "r", "1e-12 is no float16"),
        ([op("Pow", "r", "a", "k")], {"k": np.float32(2)}, "r", "squares"),
        ([op("Softmax", "r", "a", axis=1)], {}, "r", "exponentiates"),
        (
            [op("Resize", "r", "a", "", "k", mode="nearest")],
            {"k": np.array([1, 1, 2, 2], np.float32)},
            "r",
            "it takes no float16",
        ),
    ],
    ids=["constant", "epsilon", "power", "softmax", "resize"],
)
def test_what_stays_float32_is_named(
    middle: list[onnx.NodeProto], arrays: dict[str, np.ndarray], stays: str, reason: str
) -> None:
    made, refused = halved(layer(middle, arrays))
    assert reason in refused[stays]
    found = types(made)
    assert found["a"] == found["b"] == HALF
    assert found["r"] == FLOAT


def test_a_range_near_the_end_of_float16_keeps_all_that_makes_or_reads_it(tmp_path: Path) -> None:
    model = layer(RELU, {}, reach=40000.0)
    made, refused = halved(model)
    assert {name: types(made)[name] for name in ("a", "r", "r.dq", "b", "c")} == {
        **dict.fromkeys(("a", "r", "r.dq", "b"), FLOAT),
        "c": HALF,
    }
    assert "'r' reaches 4e+04 on calibration data" in refused["a"]
    onnx.save(model, tmp_path / "model.onnx")
    told = {finding.node: finding for finding in lint(tmp_path / "model.onnx")}
    assert told["b"].reason.startswith("float32, not float16: 'r' reaches 4e+04")
    assert told["b"].expected


def test_weights_too_small_for_a_float16_scale_keep_their_layer() -> None:
    made, refused = halved(layer(RELU, {}, weight=1.3e-6))
    assert refused["a"] == refused["b"] == "a scale of its weight is 1.3e-06, too small for float16"
    found = types(made)
    assert found["wa"] == found["a"] == FLOAT
    x = np.random.default_rng(0).normal(size=(2, 16, 4, 4)).astype(np.float32)
    both = [open_session(each, 1).run(None, {"x": x})[0] for each in (layer(RELU, {}, weight=1.3e-6), made)]
    np.testing.assert_allclose(both[1], both[0], rtol=2e-2, atol=1e-9)


def test_an_attentions_softmax_is_float16() -> None:
    middle = [op("Softmax", "p", "a", axis=-1), op("MatMul", "r", "p", "p")]
    made, refused = halved(layer(middle, {}))
    assert types(made)["p"] == HALF
    assert "p" not in refused


def test_positions_and_masks_made_from_integers_stay_float32() -> None:
    middle = [
        op("Shape", "n", "a"),
        op("Cast", "f", "n", to=FLOAT),
        op("ReduceMax", "m", "f", keepdims=0),
        op("Add", "r", "a", "m"),
    ]
    made, _ = halved(layer(middle, {}))
    assert types(made)["f"] == FLOAT


def test_old_opsets_and_unknown_types_are_refused() -> None:
    model = layer(RELU, {})
    old = onnx.ModelProto()
    old.CopyFrom(model)
    old.opset_import[0].version = 18
    with pytest.raises(EdgeftError, match="opset 18 has no float16 scales"):
        half_(typed(old))
    with pytest.raises(EdgeftError, match=r"the type of 'x\.q' is not known"):
        half_(ir.from_proto(model))
