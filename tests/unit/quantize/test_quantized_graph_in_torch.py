"""A Q/DQ graph in the torch executor computes the integers that onnxruntime computes.

The one difference allowed: where a real value lies next to a tie, float sums in another order round it the other way.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from edgeft.graph.execute import open_session
from edgeft.graph.module import GraphModule
from edgeft.graph.taps import with_outputs
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

NEAR_A_TIE = 1e-3
"""Distance to the next half, in steps: float32 sums of some 100 products of size 100 are exact to 1e-4."""


@pytest.fixture
def quantized(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> onnx.ModelProto:
    return quantize_static(net, PLACEMENT, pixels(32), static_method("auto", 32)).model


def q_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("optimise", [True, False])
def test_every_operator_rounds_alike_given_the_same_integers(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray], *, optimise: bool
) -> None:
    x, nodes = pixels(64, seed=3), q_nodes(quantized)
    names = [node.output[0] for node in nodes]
    integers = dict(
        zip(
            names,
            open_session(with_outputs(quantized, names), 1, optimise=optimise).run(names, {"pixels": x}),
            strict=True,
        )
    )
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    integers["pixels"] = x
    compared = 0
    for node in nodes:
        model = ir.from_proto(quantized)
        values = {str(value.name): value for each in model.graph for value in each.outputs}
        values["pixels"] = model.graph.inputs[0]
        real, q = values[node.input[0]], values[node.output[0]]
        sources = [values[name] for name in integers if name != node.output[0]]
        part = ir.Model(ir.convenience.extract(model.graph, sources, [real, q]), ir_version=10)
        part.opset_imports.update(model.opset_imports)
        module = GraphModule(part, trainable=[])
        with torch.no_grad():
            found = module({name: torch.from_numpy(integers[name]) for name in module.inputs})
        expected = integers[node.output[0]].astype(np.int64)
        steps = found[node.output[0]].numpy().astype(np.int64) - expected
        exact = found[node.input[0]].numpy().astype(np.float64) / arrays[node.input[1]]
        to_tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5)
        assert np.abs(steps).max() <= 1, node.name
        assert (to_tie[steps != 0] < NEAR_A_TIE).all(), node.name
        assert (steps != 0).mean() < 4 * NEAR_A_TIE, node.name
        compared += steps.size
    assert compared > 64 * 8 * 12 * 12


def test_end_to_end_the_logits_are_onnxruntime_s(quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    x = pixels(128, seed=4)
    names = [node.output[0] for node in q_nodes(quantized)]
    wanted = [*names, "logits", "scores"]
    expected = dict(
        zip(wanted, open_session(with_outputs(quantized, wanted), 1).run(wanted, {"pixels": x}), strict=True)
    )
    with torch.no_grad():
        found = GraphModule(ir.from_proto(quantized), trainable=[])({"pixels": torch.from_numpy(x)}, also=wanted)
    for name in names:
        assert found[name].numpy().dtype == expected[name].dtype
        steps = found[name].numpy().astype(np.int64) - expected[name]
        assert np.abs(steps).max() <= 1, name
        assert (steps != 0).mean() < 1e-3, name  # ties, and what follows from them
    spread = expected["logits"].std()
    assert np.abs(found["logits"].numpy() - expected["logits"]).mean() < 1e-3 * spread
    assert (found["scores"].numpy().argmax(axis=1) == expected["scores"].argmax(axis=1)).all()


def test_gradients_reach_every_scale_and_the_pixels_stay_integers(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    scales = sorted({node.input[1] for node in q_nodes(quantized)})
    module = GraphModule(ir.from_proto(quantized), trainable=scales)
    out = module({"pixels": torch.from_numpy(pixels(16))}, also=["logits"])
    out["logits"].square().sum().backward()
    for name in scales:
        gradient = module.tensor(name).grad
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    assert float(module.tensor("stem.clip::scale").grad.abs().sum()) > 0
