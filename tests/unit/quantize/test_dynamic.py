"""Dynamic int8: what the products compute, what stays float and why, and that no pair can saturate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.dynamic import DynamicMethod, is_transformer, quantize_dynamic
from edgeft.quantize.pair_rule import unsafe_pairs
from edgeft.quantize.products import input_statistics
from edgeft.quantize.rows import ArrayRows
from edgeft_exporters.onnx.lint import lint
from edgeft_exporters.onnx.placement import PLACEMENT

WIDTH, HIDDEN, WORDS = 12, 33, 5
"""Of the encoder in conftest.py."""
METHOD, EXECUTION = DynamicMethod(images=64), Execution(1, 8)


def rows(count: int, seed: int = 0) -> ArrayRows:
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.1, 3, WIDTH)
    return ArrayRows("x", (rng.normal(size=(count, WORDS, WIDTH)) * spread).astype(np.float32))


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_products_are_integer_ones_near_the_float_graph(
    encoder: onnx.ModelProto, operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    made = quantize_dynamic(encoder, PLACEMENT, rows(64), METHOD, execution=EXECUTION)
    kinds = [node.op_type for node in made.model.graph.node]
    assert kinds.count("MatMulInteger") == 4
    assert kinds.count("DynamicQuantizeLinear") == 3  # up and gate read the same integers
    assert made.unsafe_pairs == 0
    assert made.skips == ()
    ran = operators_run(made.model)
    assert not {"MatMul", "Gemm", "FusedGemm", "MatMulInteger"} & set(ran)  # each fused with its scales
    unseen = rows(64, seed=1)
    one = Execution(1, 1)
    expected = logits_of(encoder, unseen, one)
    found = logits_of(made.model, unseen, one)
    noise = float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())
    assert 0 < noise < 0.03  # 8 bits of a handful of layers: measured 0.013


def test_an_integer_product_is_the_exact_sum(encoder: onnx.ModelProto) -> None:
    """The integers that onnxruntime multiplies and adds, against int64 arithmetic in numpy."""
    made = quantize_dynamic(encoder, PLACEMENT, rows(64), METHOD, execution=EXECUTION)
    names = {node.output[0]: node for node in made.model.graph.node if node.op_type == "MatMulInteger"}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(made.model)
    wanted = [*names, *(name for node in names.values() for name in (node.input[0], node.input[2]))]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    keys = [output.name for output in session.get_outputs()]
    values = dict(zip(keys, session.run(None, rows(3, seed=2)[:3]), strict=True))
    weights = initializers(made.model)
    for name, node in names.items():
        q, zero_point, weight = values[node.input[0]], values[node.input[2]], weights[node.input[1]]
        exact = (q.astype(np.int64) - int(zero_point)) @ weight.astype(np.int64)
        np.testing.assert_array_equal(values[name], exact)


def test_weights_cost_less_than_rounding_at_reduced_range(encoder: onnx.ModelProto) -> None:
    data = rows(64)
    made = initializers(quantize_dynamic(encoder, PLACEMENT, data, METHOD, execution=EXECUTION).model)
    inverse = made["x::smooth"].astype(np.float64)
    x = data.values.reshape(-1, WIDTH).astype(np.float64)
    for name in ("up", "gate"):
        weight = initializers(encoder)[f"{name}.w"].astype(np.float64)
        integers, scale = made[f"{name}::weight::q"], made[f"{name}::weight::scale"]
        assert unsafe_pairs(integers.T.astype(np.int64)) == 0
        plain_scale = np.abs(weight).max(axis=0) / 64
        plain = np.rint(weight / plain_scale) * plain_scale
        ours = ((x @ (integers * scale.astype(np.float64) * inverse[:, None] - weight)) ** 2).sum()
        assert ours < ((x @ (plain - weight)) ** 2).sum()


def test_statistics_do_not_depend_on_batches(encoder: onnx.ModelProto) -> None:
    data = rows(20)
    x = data.values.reshape(-1, WIDTH).astype(np.float64)
    for batch in (1, 7, 20):
        found = input_statistics(encoder, ["x", "hidden"], data, 20, Execution(1, batch))
        np.testing.assert_allclose(found["x"].moment, x.T @ x / len(x), rtol=1e-5, atol=1e-5)  # float32 products
        np.testing.assert_array_equal(found["x"].low, data.values.min(axis=(0, 1)))
        np.testing.assert_array_equal(found["x"].high, data.values.max(axis=(0, 1)))
        assert found["hidden"].moment.shape == (HIDDEN, HIDDEN)


def test_channels_that_are_alike_are_not_smoothed(encoder: onnx.ModelProto) -> None:
    """It would cost a multiplication for next to nothing."""
    alike = ArrayRows("x", np.random.default_rng(0).normal(size=(64, WORDS, WIDTH)).astype(np.float32))
    assert "x::smooth" in initializers(
        quantize_dynamic(encoder, PLACEMENT, rows(64), METHOD, execution=EXECUTION).model
    )
    made = quantize_dynamic(encoder, PLACEMENT, alike, METHOD, execution=EXECUTION)
    assert "x::smooth" not in initializers(made.model)
    assert made.model.graph.node[0].op_type == "DynamicQuantizeLinear"


def test_an_outlier_channel_no_longer_coarsens_the_others(encoder: onnx.ModelProto) -> None:
    data = rows(64)
    data.values[..., 3] *= 50  # its weights shrink likewise, so that it is no more important than before
    weights = next(tensor for tensor in encoder.graph.initializer if tensor.name == "up.w")
    array = numpy_helper.to_array(weights).copy()
    array[3] /= 50
    weights.CopyFrom(numpy_helper.from_array(array, "up.w"))
    tapped = onnx.ModelProto()
    tapped.CopyFrom(encoder)
    tapped.graph.node[3].input[0] = "x2"  # gate reads another tensor
    tapped.graph.node.insert(0, helper.make_node("Relu", ["x"], ["x2"], "x2"))
    made = quantize_dynamic(tapped, PLACEMENT, data, METHOD, execution=EXECUTION).model
    one = Execution(1, 1)
    expected, found = (logits_of(model, data, one, tensor="up") for model in (tapped, made))
    noise = float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())
    assert noise < 0.02  # measured 0.008; 0.1 with one scale for channels as they are


def test_what_cannot_be_an_integer_product_says_why(encoder: onnx.ModelProto) -> None:
    made = quantize_dynamic(_attention(encoder), PLACEMENT, rows(8), METHOD, execution=EXECUTION)
    reason = "its weights are computed, not constant"
    assert [(skip.layer, skip.reason) for skip in made.skips] == [("core", reason), ("attended", reason)]


def _attention(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Return `encoder` with a product of two computed tensors before its mean."""
    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    nodes = list(model.graph.node)
    flipped = helper.make_node("Transpose", ["down"], ["flipped"], "flipped", perm=[0, 2, 1])
    core = helper.make_node("MatMul", ["down", "flipped"], ["weights"], "core")
    mixed = helper.make_node("ReduceMean", ["weights", "axes"], ["mixed"], "mixed", keepdims=1)
    added = helper.make_node("MatMul", ["mixed", "down"], ["attended"], "attended")
    nodes[-2].input[0] = "attended"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:-2], flipped, core, mixed, added, *nodes[-2:]])
    return model


def test_the_linter_explains_every_float_operator(encoder: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    onnx.save(quantize_dynamic(encoder, PLACEMENT, rows(8), METHOD, execution=EXECUTION).model, path)
    findings = lint(path)
    assert {finding.op_type for finding in findings} >= {"Gelu", "ReduceMean"}
    assert not [finding for finding in findings if "although its inputs" in finding.reason]


def test_bad_input_is_refused(encoder: onnx.ModelProto, net: onnx.ModelProto) -> None:
    how = {"execution": EXECUTION}
    with pytest.raises(QuantizationError, match="no inputs"):
        quantize_dynamic(encoder, PLACEMENT, rows(0), METHOD, **how)
    poisoned = rows(4)
    poisoned.values[2, 1, 3] = np.nan
    with pytest.raises(QuantizationError, match="'x' holds NaN or Inf"):
        quantize_dynamic(encoder, PLACEMENT, poisoned, METHOD, **how)
    made = quantize_dynamic(encoder, PLACEMENT, rows(4), METHOD, **how).model
    with pytest.raises(QuantizationError, match="already quantized"):
        quantize_dynamic(made, PLACEMENT, rows(4), METHOD, **how)
    convolutional = onnx.ModelProto()
    convolutional.CopyFrom(net)
    del convolutional.graph.node[-4:]
    del convolutional.graph.output[:]
    convolutional.graph.output.append(onnx.ValueInfoProto(name="max"))
    with pytest.raises(QuantizationError, match="nothing in this graph can be quantized dynamically"):
        quantize_dynamic(
            convolutional, PLACEMENT, ArrayRows("pixels", np.zeros((1, 12, 12, 3), np.uint8)), METHOD, **how
        )


def test_transformers_are_told_from_convolutional_nets(encoder: onnx.ModelProto, net: onnx.ModelProto) -> None:
    assert is_transformer(encoder)
    assert not is_transformer(net)
