"""QAT on the Q/DQ graph: it starts where calibration ended, learns, stays lawful, and ships what it trained."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgeft import catalog
from edgeft.core.errors import EdgeftError
from edgeft.graph.torch_ops.operator import UnsupportedNodeError
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.follow import distance
from edgeft.quantize.proof import count_unsafe_pairs
from edgeft.quantize.qat import QatMethod, tune
from edgeft.quantize.qat_graph import TrainableGraph
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

METHOD = QatMethod(steps=60, batch=16, scale_rate=1e-2)


@pytest.fixture
def quantized(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> onnx.ModelProto:
    return quantize_static(net, PLACEMENT, pixels(32), static_method("minmax", 32)).model


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def logit_error(model: onnx.ModelProto, net: onnx.ModelProto, x: np.ndarray) -> float:
    return float(
        np.abs(
            logits_of(model, ArrayRows("pixels", x), Execution()) - logits_of(net, ArrayRows("pixels", x), Execution())
        ).mean()
    )


def test_untrained_it_is_the_graph_it_was_made_from(quantized: onnx.ModelProto) -> None:
    graph = TrainableGraph(quantized, PLACEMENT)
    graph.project_()
    written, before = arrays(graph.write_back()), arrays(quantized)
    assert set(written) == set(before)
    for name, array in before.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
        assert (written[name].dtype, written[name].shape) == (array.dtype, array.shape), name


def test_untrained_it_computes_what_the_quantized_graph_computes(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    x = pixels(32, seed=7)
    with torch.no_grad():
        found = TrainableGraph(quantized, PLACEMENT).module({"pixels": torch.from_numpy(x)}, ["logits"])["logits"]
    expected = logits_of(quantized, ArrayRows("pixels", x), Execution())
    assert np.abs(found.numpy() - expected).mean() < 1e-3 * expected.std()  # ties apart, float rounding


def test_pixels_without_a_zero_point_are_trained_on(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    image, dq = net.graph.node[:2]
    del dq.input[2]  # left out, it is 0
    dq.input[0], image.input[0], image.output[0] = "pixels", "x", "turned"  # the Transpose moves behind the DQ
    nodes = [dq, image, *net.graph.node[2:]]
    nodes[2].input[0] = "turned"
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    made = quantize_static(net, PLACEMENT, pixels(32), static_method("minmax", 32)).model
    result = tune(made, net, PLACEMENT, pixels(32), replace(METHOD, steps=2), rng=np.random.default_rng(0))
    assert np.isfinite(result.losses).all()


def test_training_brings_unseen_logits_nearer_to_the_float_graph(
    net: onnx.ModelProto, quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    result = tune(quantized, net, PLACEMENT, pixels(64), METHOD, rng=np.random.default_rng(0))
    assert len(result.losses) == METHOD.steps
    x = pixels(256, seed=5)
    assert logit_error(result.model, net, x) < 0.85 * logit_error(quantized, net, x)  # measured 0.71


def test_what_is_trained_is_lawful_and_still_fuses(
    net: onnx.ModelProto,
    quantized: onnx.ModelProto,
    pixels: Callable[..., np.ndarray],
    operators_run: Callable[[onnx.ModelProto], list[str]],
) -> None:
    # rates far above any sensible one, so that every law would be broken
    wild = replace(METHOD, steps=10, rate=8.0, scale_rate=0.3)
    result = tune(quantized, net, PLACEMENT, pixels(32), wild, rng=np.random.default_rng(0))
    after, before = arrays(result.model), arrays(quantized)
    assert (after["pw::weight::q"] != before["pw::weight::q"]).mean() > 0.5
    assert count_unsafe_pairs(result.model) == 0
    assert min(int(array.min()) for array in after.values() if array.dtype == np.int8) >= -127
    assert after["stem.clip::scale"] != before["stem.clip::scale"]
    assert np.float32(255) * after["stem.clip::scale"] <= np.float32(6)
    assert after["max::scale"] == after["sum::scale"]  # MaxPool only moves integers
    np.testing.assert_array_equal(after["std"], before["std"])  # the pixels' own scale is no parameter
    np.testing.assert_array_equal(after["pw::bias::scale"], after["dw.relu::scale"] * after["pw::weight::scale"])
    ran = operators_run(result.model)
    assert ran.count("QLinearConv") == 3
    assert not {"Conv", "Gemm", "QuantizeLinear", "Clip", "Relu"} & set(ran)


def test_a_projected_graph_computes_in_torch_what_it_ships(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    graph, rng = TrainableGraph(quantized, PLACEMENT), np.random.default_rng(1)
    with torch.no_grad():
        for layer in graph.layers:
            weight = graph.module.tensor(layer.weight)
            weight.add_(torch.from_numpy(rng.normal(0, float(weight.abs().max()) / 10, weight.shape)))
    graph.project_()
    x = pixels(32, seed=7)
    with torch.no_grad():
        found = graph.module({"pixels": torch.from_numpy(x)}, ["logits"])["logits"].numpy()
    expected = logits_of(graph.write_back(), ArrayRows("pixels", x), Execution())
    assert np.abs(found - expected).mean() < 2e-3 * expected.std()


def test_projecting_twice_is_projecting_once(quantized: onnx.ModelProto) -> None:
    graph, rng = TrainableGraph(quantized, PLACEMENT), np.random.default_rng(2)
    with torch.no_grad():
        for parameter in graph.module.parameters():
            parameter.mul_(torch.from_numpy(rng.uniform(0.5, 3.0, parameter.shape)))
    graph.project_()
    once = {name: parameter.detach().clone() for name, parameter in graph.module.named_parameters()}
    graph.project_()
    for name, parameter in graph.module.named_parameters():
        assert torch.equal(parameter, once[name]), name


def test_an_input_scale_leaves_room_for_the_biases(quantized: onnx.ModelProto) -> None:
    graph = TrainableGraph(quantized, PLACEMENT)
    layer = next(layer for layer in graph.layers if layer.input_scale in graph.scales and layer.bias is not None)
    with torch.no_grad():
        graph.module.tensor(layer.input_scale).fill_(1e-20)
        graph.module.tensor(layer.bias[2]).fill_(0.5)
    graph.project_()
    assert np.abs(arrays(graph.write_back())[layer.bias[0]].astype(np.float64)).max() <= 2**30 + 2**10


def test_a_bias_that_does_not_fit_gives_way_and_not_the_scale_of_its_input(quantized: onnx.ModelProto) -> None:
    graph = TrainableGraph(quantized, PLACEMENT)
    layer = next(layer for layer in graph.layers if layer.input_scale in graph.scales and layer.bias is not None)
    scale, bias = graph.module.tensor(layer.input_scale), graph.module.tensor(layer.bias[2])
    before = scale.detach().clone()
    with torch.no_grad():
        bias[0] = -1e12
    graph.project_()
    assert torch.equal(scale, before)
    assert arrays(graph.write_back())[layer.bias[0]][0] == -(2**30)


def test_the_same_generator_gives_the_same_graph(
    net: onnx.ModelProto, quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    few = replace(METHOD, steps=3, tensors=("dw", "sum"))
    once, again = (
        tune(quantized, net, PLACEMENT, pixels(32), few, rng=np.random.default_rng(3)).model.SerializeToString()
        for _ in range(2)
    )
    assert once == again


def test_bad_input_is_refused(
    net: onnx.ModelProto, quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(QuantizationError, match="needs images"):
        tune(quantized, net, PLACEMENT, pixels(1)[:0], METHOD, rng=rng)
    with pytest.raises(QuantizationError, match="no integer weights"):
        tune(net, net, PLACEMENT, pixels(4), METHOD, rng=rng)
    with pytest.raises(EdgeftError, match="no tensor 'nowhere'"):
        tune(quantized, net, PLACEMENT, pixels(4), replace(METHOD, tensors=("nowhere",)), rng=rng)


def test_an_operator_that_cannot_be_trained_through_is_named(
    quantized: onnx.ModelProto, net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    for model in (quantized, net):
        next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "Hardmax"
    with pytest.raises(UnsupportedNodeError, match=r"'scores' \(Hardmax\)"):
        tune(quantized, net, PLACEMENT, pixels(4), METHOD, rng=np.random.default_rng(0))


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
@pytest.mark.parametrize("low", [-0.02, -1.0])
def test_a_calibrated_graph_is_lawful_as_it_is(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], target: str, low: float
) -> None:
    """A Clip below zero limits a scale only where the Q stands for it."""
    for tensor in net.graph.initializer:
        if tensor.name == "low":
            tensor.CopyFrom(numpy_helper.from_array(np.array(low, np.float32), "low"))
    placement = replace(catalog.exporter(target).placement, fewest_channels=0, fewest_rows=0)
    made = quantize_static(net, placement, pixels(32), static_method("mse", 32)).model
    graph = TrainableGraph(made, placement)
    graph.project_()
    x = pixels(64, seed=7)
    expected, before, after = (
        logits_of(model, ArrayRows("pixels", x), Execution(optimise=False)) for model in (net, made, graph.write_back())
    )
    assert np.square(before - expected).mean() < 0.01 * expected.var()
    assert np.square(after - expected).mean() < 1.1 * np.square(before - expected).mean()


def test_one_number_alone_can_be_followed() -> None:
    one = {"y": torch.tensor([[2.0]])}
    assert float(distance(one, one, ["y"])) == 0
    assert 0 < float(distance({"y": torch.tensor([[2.1]])}, one, ["y"])) < float("inf")
