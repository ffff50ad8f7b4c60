"""Whole networks for TensorRT: what is quantized, by the architecture's own numbers, and what lowered graphs answer."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import timm
import torch
import torchvision

from edgeft.graph.execute import open_session
from edgeft.graph.simplify import simplify_
from edgeft.graph.trace import trace
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.conformance import breaches
from edgeft_exporters.tensorrt.costs import costs
from edgeft_exporters.tensorrt.placement import PLACEMENT

pytestmark = pytest.mark.slow
SIDE, IMAGES = 64, 8
NETS = {
    "resnet18": (20, 8),
    "mobilenetv2_100": (52, 10),
    "tf_efficientnet_lite0": (49, 9),
    "mobilenetv3_large_100": (63, 10),
}
"""Convolutions and residual additions, counted in the papers' tables; gates are two convolutions each."""


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))


@pytest.mark.parametrize("name", NETS)
def test_a_net_conforms_and_answers_near_float(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18() if name == "resnet18" else timm.create_model(name)
    net.train()
    with torch.no_grad():
        net(torch.randn(16, 3, SIDE, SIDE))  # statistics for BatchNorm
    traced = trace(net.eval(), SIDE, SIDE, 20)
    simplify_(traced)
    graph = ir.to_proto(traced)
    x = np.random.default_rng(0).normal(size=(IMAGES, 3, SIDE, SIDE)).astype(np.float32)
    made = quantize_static(graph, PLACEMENT, x, static_method("minmax", IMAGES)).model

    model = ir.from_proto(onnx.shape_inference.infer_shapes(made))
    assert breaches(model) == ()
    assert costs(model) == ()
    fed = {name for node in made.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    readers = [node.op_type for node in made.graph.node if not fed.isdisjoint(node.input)]
    convolutions, additions = NETS[name]
    assert {kind: readers.count(kind) for kind in set(readers)} == {"Conv": convolutions, "Add": additions}

    onnx.save(made, tmp_path / "int8.onnx")
    lowered = onnx.load(TensorRtExporter().lower(tmp_path / "int8.onnx", tmp_path / "out")[0])
    expected, int8, half = (
        open_session(each, 2, optimise=False).run(None, {"x": x})[0] for each in (graph, made, lowered)
    )
    # Random weights: what 8 bits cost is not bounded tightly; float16 for the rest moves ties, as any change would.
    assert sqnr_db(expected, int8) > 10
    assert sqnr_db(expected, half) > sqnr_db(expected, int8) - 3
