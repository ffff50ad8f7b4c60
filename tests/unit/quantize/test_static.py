from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.config import CompressConfig
from edgeft.quantize.dynamic import DynamicMethod
from edgeft.quantize.ladder import method_for
from edgeft.quantize.proof import count_unsafe_pairs
from edgeft.quantize.ranges import RANGES
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import StaticMethod, quantize_static, static_method
from edgeft.quantize.weight_only import WeightOnlyMethod
from edgeft_exporters.onnx.placement import PLACEMENT

METHODS = ["minmax", "percentile", "entropy", "mse", "output_error", "gptq"]


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return logits_of(model, ArrayRows("pixels", x), Execution())


@pytest.mark.parametrize("method", METHODS)
def test_logits_stay_near_the_float_graph(net: onnx.ModelProto, pixels: Callable[..., np.ndarray], method: str) -> None:
    result = quantize_static(net, PLACEMENT, pixels(48), static_method(method, 32))
    x = pixels(64, seed=9)
    expected, found = logits(net, x), logits(result.model, x)
    noise = ((found - expected) ** 2).mean() / expected.var(axis=0).mean()
    assert noise < 0.01  # 20 dB; 8 bits a layer give about 30
    assert result.unsafe_pairs == 0


def test_bias_correction_restores_the_mean_logits(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    x = pixels(64)
    shifts = {}
    for images in (0, 64):
        result = quantize_static(net, PLACEMENT, x, static_method("mse", images))
        shifts[images] = np.abs((logits(result.model, x) - logits(net, x)).mean(axis=0)).max()
    assert shifts[64] < 1e-3
    assert shifts[64] < shifts[0]


def test_weights_biases_and_activations_are_stored_as_the_target_asks(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    result = quantize_static(net, PLACEMENT, pixels(16), static_method("auto", 16))
    stored = arrays(result.model)
    assert stored["stem::weight::q"].dtype == np.int8
    assert stored["stem::weight::scale"].shape == (8,)
    assert stored["logits::weight::q"].shape == (3, 8)
    assert stored["stem::bias::q"].dtype == np.int32
    assert stored["sum::zero_point"].dtype == np.uint8
    np.testing.assert_array_equal(stored["stem::bias::scale"], stored["std"] * stored["stem::weight::scale"])
    assert "pw::bias::q" in stored  # the pointwise layer had no bias: correction gives it one
    assert not {"stem.w", "stem.b", "head.w"} & set(stored)


def test_a_clip_before_a_q_can_vanish(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    stored = arrays(quantize_static(net, PLACEMENT, pixels(16), static_method("minmax", 16)).model)
    assert stored["stem.clip::zero_point"] == 0
    assert np.float32(255) * stored["stem.clip::scale"] <= np.float32(6)


def test_a_clip_below_zero_can_vanish_wherever_the_zero_point_lies(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    for low, high in ((-1.0, 1.0), (-0.3, 0.7)):
        for tensor in net.graph.initializer:
            if tensor.name in {"low", "high"}:
                value = np.float32(low if tensor.name == "low" else high)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        made = quantize_static(net, PLACEMENT, pixels(16), static_method("minmax", 16)).model
        stored = arrays(made)
        scale, zero = stored["stem.clip::scale"], np.float32(stored["stem.clip::zero_point"])
        assert 0 < zero < 255
        assert low <= -zero * scale < low + 2 * scale
        assert high >= (255 - zero) * scale > high - 2 * scale
        assert "Clip" not in operators_run(made)


def test_the_runtime_fuses_every_planned_operator(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    result = quantize_static(net, PLACEMENT, pixels(16), static_method("auto", 16))
    ran = operators_run(result.model)
    assert ran.count("QLinearConv") == 3
    assert {"QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= set(ran)
    assert not {"Conv", "Gemm", "QuantizeLinear", "Clip", "Relu"} & set(ran)


def test_two_runs_give_the_same_bytes(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    one, two = (quantize_static(net, PLACEMENT, pixels(16), static_method("auto", 16)).model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


def test_the_float_graph_is_left_as_it_was(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    before = net.SerializeToString(deterministic=True)
    quantize_static(net, PLACEMENT, pixels(8), static_method("auto", 8))
    assert net.SerializeToString(deterministic=True) == before


def test_quantizing_twice_is_refused(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    once = quantize_static(net, PLACEMENT, pixels(8), static_method("mse", 8)).model
    with pytest.raises(QuantizationError, match="already quantized"):
        quantize_static(once, PLACEMENT, pixels(8), static_method("mse", 8))


@pytest.mark.parametrize("method", METHODS)
def test_constant_images_still_give_a_graph_that_runs(net: onnx.ModelProto, method: str) -> None:
    grey = np.full((8, 12, 12, 3), 127, np.uint8)
    result = quantize_static(net, PLACEMENT, grey, static_method(method, 8))
    np.testing.assert_allclose(logits(result.model, grey), logits(net, grey), atol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_layer_is_quantized_to_zeros(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], method: str
) -> None:
    for tensor in net.graph.initializer:
        if tensor.name in {"dw.w", "dw.b"}:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    x = pixels(16)
    result = quantize_static(net, PLACEMENT, x, static_method(method, 16))
    assert not arrays(result.model)["dw::weight::q"].any()
    np.testing.assert_allclose(logits(result.model, x), logits(net, x), atol=0.1)


def test_a_huge_bias_on_a_near_dead_channel_fits_int32(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    for tensor in net.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "stem.w":
            array[0] *= 1e-12
        if tensor.name == "stem.b":
            array[0] = 3.0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = pixels(16)
    result = quantize_static(net, PLACEMENT, x, static_method("auto", 16))
    stored = arrays(result.model)
    real = stored["stem::bias::q"].astype(np.float64) * stored["stem::bias::scale"]
    assert real[0] == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose(logits(result.model, x), logits(net, x), atol=0.1)


def test_a_target_without_saturating_kernels_keeps_full_range(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    full, safe = (
        quantize_static(net, placement, pixels(16), static_method("mse", 16))
        for placement in (replace(PLACEMENT, saturating_pairs=False), PLACEMENT)
    )
    assert full.unsafe_pairs == count_unsafe_pairs(full.model) > 0
    assert safe.unsafe_pairs == 0


def test_skips_are_reported(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    result = quantize_static(net, PLACEMENT, pixels(8), static_method("mse", 8))
    assert {skip.layer for skip in result.skips} == {"scaled", "scores"}
    assert all(skip.reason for skip in result.skips)


def test_labels_say_what_was_done() -> None:
    assert static_method("minmax", 96).label == "minmax+pair_safe+bias_correction"
    assert static_method("auto", 96).label == "equalised+mse+pair_safe+float_target+gptq+bias_correction"
    assert static_method("mse", 0).label == "mse+pair_safe"
    assert static_method("entropy", 96).label == "entropy+pair_safe+bias_correction"
    assert static_method("output_error", 0).label == "output_error+pair_safe"


def test_tensors_of_transformers_are_spared_only_where_that_is_asked_for() -> None:
    for name in ("auto", "gptq", "qat"):
        assert static_method(name, 8).spare > 0
        assert static_method(name, 8, transformer=True).spare == 0
        assert static_method(name, 8, 0.3, transformer=True).spare == 0.3
    assert static_method("mse", 8, 0.3).spare == 0


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(QuantizationError, match="no method 'mes'") as raised:
        static_method("mes", 96)
    assert "mse" in str(raised.value.hint)


def test_every_method_of_the_config_is_known(net: onnx.ModelProto) -> None:
    for name in get_args(CompressConfig.model_fields["method"].annotation):
        made = method_for(net, PLACEMENT, "int8", name, 8)
        kind = {"dynamic": DynamicMethod, "weight_only": WeightOnlyMethod}.get(name, StaticMethod)
        assert isinstance(made, kind)
        assert made.precision == "int8"
        assert kind is not StaticMethod or made.ranges in RANGES


def test_every_precision_of_the_config_is_known(net: onnx.ModelProto) -> None:
    for precision in get_args(CompressConfig.model_fields["precision"].annotation):
        if precision != "fp32":
            assert method_for(net, PLACEMENT, precision, "auto", 8).precision == precision


def test_a_method_belongs_to_int8() -> None:
    with pytest.raises(ValidationError, match="method mse makes int8, precision is int4"):
        CompressConfig(precision="int4", method="mse")


def token_net() -> onnx.ModelProto:
    """Token ids int64 [N, 6] through an embedding, a MatMul and a mean to scores [N, 3]."""
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.normal(size=(20, 8)).astype(np.float32),
        "w": rng.normal(size=(8, 3)).astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        onnx.helper.make_node("Gather", ["table", "ids"], ["x"], "embed"),
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "project"),
        onnx.helper.make_node("ReduceMean", ["y", "axes"], ["logits"], "mean", keepdims=0),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "tokens",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N", 6])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_int64_inputs_stay_integers_and_what_stays_float_is_told() -> None:
    net, ids = token_net(), np.random.default_rng(1).integers(0, 20, (16, 6))
    result = quantize_static(net, PLACEMENT, ids, static_method("mse", 16))
    assert {skip.layer for skip in result.skips} == {"embed", "mean"}
    session, float_session = (ort.InferenceSession(m.SerializeToString()) for m in (result.model, net))
    found, expected = (s.run(None, {"ids": ids})[0] for s in (session, float_session))
    np.testing.assert_allclose(found, expected, atol=0.05)  # 8 bits of values up to 10, averaged over 6


def test_images_are_refused_where_token_ids_are_expected(pixels: Callable[..., np.ndarray]) -> None:
    with pytest.raises(QuantizationError, match="calibration data is uint8, but input 'ids' takes int64"):
        quantize_static(token_net(), PLACEMENT, pixels(4), static_method("mse", 4))


def folding_net(fold: str) -> onnx.ModelProto:
    """Layers whose first axis is not the batch: rows [N * L, C], or words first, [L, N, C]; `x` to `logits`."""
    words, width, hidden, classes = 5, 16, 24, 3
    rng = np.random.default_rng(0)
    weights = {
        "up.w": (width, hidden),
        "up.b": (hidden,),
        "down.w": (hidden, width),
        "down.b": (width,),
        "head.w": (width, classes),
        "head.b": (classes,),
    }
    arrays = {name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in weights.items()}
    arrays |= {"rows": np.array([-1, width]), "words": np.array([-1, words, width]), "axes": np.array([1])}
    node = helper.make_node
    folds = {
        "rows": (node("Reshape", ["x", "rows"], ["in"], "in"), node("Reshape", ["down", "words"], ["out"], "out")),
        "words first": (
            node("Transpose", ["x"], ["in"], "in", perm=[1, 0, 2]),
            node("Transpose", ["down"], ["out"], "out", perm=[1, 0, 2]),
        ),
    }
    before, after = folds[fold]

    def product(x: str, name: str, y: str) -> list[onnx.NodeProto]:
        if fold == "rows":
            return [node("Gemm", [x, f"{name}.w", f"{name}.b"], [y], name)]
        return [node("MatMul", [x, f"{name}.w"], [f"{y}.m"], name), node("Add", [f"{y}.m", f"{name}.b"], [y], f"{y}.+")]

    nodes = [
        before,
        *product("in", "up", "up"),
        node("Relu", ["up"], ["relu"], "relu"),
        *product("relu", "down", "down"),
        after,
        node("ReduceMean", ["out", "axes"], ["mean"], "mean", keepdims=0),
        node("Gemm", ["mean", "head.w", "head.b"], ["logits"], "head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", words, width])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "folding", [x], [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("fold", ["rows", "words first"])
@pytest.mark.parametrize("method", ["minmax", "gptq"])
def test_an_axis_folded_into_the_batch_is_no_obstacle(fold: str, method: str) -> None:
    net = folding_net(fold)
    x = np.random.default_rng(1).normal(size=(21, 5, 16)).astype(np.float32)  # the last batch of 8 holds 5
    made = quantize_static(net, PLACEMENT, x, static_method(method, 21, 0.5))
    rows = ArrayRows("x", x)
    expected, found = (logits_of(model, rows, Execution()) for model in (net, made.model))
    noise = ((found - expected) ** 2).mean() / expected.var(axis=0).mean()
    assert noise < 0.01
    assert np.abs((found - expected).mean(axis=0)).max() < 0.02 * expected.std()
