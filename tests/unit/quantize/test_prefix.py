from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgeft.graph.taps import with_outputs
from edgeft.quantize.calibration import Execution
from edgeft.quantize.prefix import Prefix
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

TARGETS = ["image", "stem.clip::q", "sum::q", "flat::q"]


@pytest.fixture
def quantized(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> onnx.ModelProto:
    return quantize_static(net, PLACEMENT, pixels(8), static_method("mse", 8)).model


def prefix_of(model: onnx.ModelProto, x: np.ndarray, batch: int) -> tuple[Prefix, dict[str, ir.Value]]:
    graph = ir.from_proto(model)
    values = {str(value.name): value for node in graph.graph for value in node.outputs}
    targets = {name: values[name] for name in TARGETS}
    return Prefix(graph, list(targets.values()), x, Execution(1, batch)), targets


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_each_tensor_is_what_the_whole_graph_computes(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray], batch: int
) -> None:
    x = pixels(7, seed=5)
    prefix, targets = prefix_of(quantized, x, batch)
    session = ort.InferenceSession(with_outputs(quantized, TARGETS).SerializeToString())
    for name, expected in zip(TARGETS, session.run(TARGETS, {"pixels": x}), strict=True):
        found = prefix.advance(targets[name])
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_only_tensors_that_are_still_read_are_kept(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    prefix, targets = prefix_of(quantized, pixels(2), 2)
    held = []
    for name in TARGETS:
        prefix.advance(targets[name])
        held.append({str(value.name) for value in prefix._live})
    assert held == [{"image"}, {"stem.clip::q"}, {"sum::q"}, set()]


def test_chunks_cover_the_array_in_order(quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    prefix, _ = prefix_of(quantized, pixels(2), 3)
    chunks = list(prefix.chunks(np.arange(8)))
    assert [chunk.tolist() for chunk in chunks] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_floats_are_kept_in_half_precision(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    graph, x = ir.from_proto(onnx.shape_inference.infer_shapes(net)), pixels(5, seed=6)
    values = {str(value.name): value for node in graph.graph for value in node.outputs}
    prefix = Prefix(graph, [values["stem.clip"], values["sum"]], x, Execution(1, 2))
    session = ort.InferenceSession(with_outputs(net, ["stem.clip", "sum"]).SerializeToString())
    for name, expected in zip(["stem.clip", "sum"], session.run(["stem.clip", "sum"], {"pixels": x}), strict=True):
        found = prefix.advance(values[name])
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)  # 2**-11 at each of two steps
