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
        found = np.concatenate(list(prefix.advance(targets[name])))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_tensors_are_kept_while_they_are_read_unless_they_are_larger_than_their_source(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stem.clip` and `sum` have more channels than the image: they are computed again on the way to what follows."""
    monkeypatch.setattr("edgeft.quantize.prefix.SMALL", 0)
    prefix, targets = prefix_of(quantized, pixels(2), 2)
    held = []
    for name in TARGETS:
        list(prefix.advance(targets[name]))
        held.append({str(value.name) for value in prefix._live})
    assert held == [{"image"}, {"image"}, {"image"}, set()]


def test_small_tensors_are_kept_for_all_images_together(
    quantized: onnx.ModelProto, pixels: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, held = pixels(4), []
    prefix, targets = prefix_of(quantized, x, 2)
    list(prefix.advance(targets["image"]))
    size = sum(part.nbytes for part in prefix.advance(targets["stem.clip::q"]))
    for largest in (size, size - 1):
        monkeypatch.setattr("edgeft.quantize.prefix.SMALL", largest)
        prefix, targets = prefix_of(quantized, x, 2)
        for name in ("image", "stem.clip::q"):
            list(prefix.advance(targets[name]))
        held.append({str(value.name) for value in prefix._live})
    assert held == [{"stem.clip::q"}, {"image"}]


def test_no_more_than_two_tensors_in_a_row_are_computed_again(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeft.quantize.prefix.SMALL", 0)
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(net))
    values = {str(value.name): value for node in graph.graph for value in node.outputs}
    targets = [values[name] for name in ("stem.clip", "dw", "sum", "flat")]
    prefix = Prefix(graph, targets, pixels(3), Execution(1, 2))
    held = []
    for target in targets[:3]:
        list(prefix.advance(target))
        held.append({str(value.name) for value in prefix._live})
    assert held == [{"pixels"}, {"pixels"}, {"sum"}]


def test_floats_are_kept_in_half_precision(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    graph, x = ir.from_proto(onnx.shape_inference.infer_shapes(net)), pixels(5, seed=6)
    values = {str(value.name): value for node in graph.graph for value in node.outputs}
    prefix = Prefix(graph, [values["stem.clip"], values["sum"]], x, Execution(1, 2))
    session = ort.InferenceSession(with_outputs(net, ["stem.clip", "sum"]).SerializeToString())
    for name, expected in zip(["stem.clip", "sum"], session.run(["stem.clip", "sum"], {"pixels": x}), strict=True):
        found = np.concatenate(list(prefix.advance(values[name])))
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)  # 2**-11 at each of two steps
