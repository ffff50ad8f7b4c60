"""What one segment in int8 does to the output: against a graph with it alone in int8, and planted faults."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.search import segment_chain
from edgeft.quantize.sensitivity import Sensitivity, sensitivity
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

EXECUTION = Execution()


@pytest.fixture
def quantized(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> onnx.ModelProto:
    return quantize_static(net, PLACEMENT, pixels(32), static_method("minmax", 16), execution=EXECUTION).model


def measure(net: onnx.ModelProto, quantized: onnx.ModelProto, x: np.ndarray) -> Sensitivity:
    chain = segment_chain(net, PLACEMENT)
    return sensitivity(net, quantized, chain, "logits", {"pixels": x}, EXECUTION)


def test_a_segment_costs_what_a_graph_with_it_alone_in_int8_loses(
    net: onnx.ModelProto, quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    """Joined by hand: the nodes of one segment from the int8 graph, all others from the float graph."""
    x = pixels(8, seed=5)
    found = measure(net, quantized, x)
    first = set(found.chain[0].tensors)
    end = found.chain[0].tensors[-1]
    joined = onnx.ModelProto()
    joined.CopyFrom(quantized)
    del joined.graph.node[:]
    cut = max(index for index, node in enumerate(quantized.graph.node) if node.output[0] == end)
    joined.graph.node.extend(quantized.graph.node[: cut + 1])
    joined.graph.node.extend(node for node in net.graph.node if node.output[0] not in first)
    known = {tensor.name for tensor in joined.graph.initializer}
    joined.graph.initializer.extend(tensor for tensor in net.graph.initializer if tensor.name not in known)
    logits = [logits_of(model, ArrayRows("pixels", x), EXECUTION) for model in (joined, net)]
    expected = np.square(logits[0].astype(np.float64) - logits[1]).mean()
    assert found.noise[0] == pytest.approx(expected, rel=0.05)  # the last integer step rounds or does not
    assert found.noise[0] > 0


def test_a_planted_fault_is_the_worst_segment(
    net: onnx.ModelProto, quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    before = measure(net, quantized, pixels(8))
    tensor = next(tensor for tensor in quantized.graph.initializer if tensor.name == "pw::weight::scale")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
    after = measure(net, quantized, pixels(8))
    assert set(after.worst()) == set(after.chain[1].nodes) != set(before.worst())
    assert all("in int8 causes" in reason for reason in after.worst().values())
    np.testing.assert_array_equal(after.noise[[0, 2]], before.noise[[0, 2]])


def test_equal_graphs_have_no_worst_segment(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    found = measure(net, net, pixels(4))
    np.testing.assert_array_equal(found.noise, 0)
    assert found.worst() == {}
