from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgeft.core.events import Event, Progress
from edgeft.graph.taps import with_outputs
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import THINNING, Execution, observe
from edgeft.quantize.collected import CalibrationRequest
from edgeft.quantize.observers import ChannelImportance

SUM = CalibrationRequest({"sum": None})


def model_of(net: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(net))


def tensors(net: onnx.ModelProto, names: list[str], x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(with_outputs(net, names).SerializeToString())
    return list(session.run(names, {"pixels": x}))


def test_extremes_and_means_are_those_of_the_whole_set(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    x = pixels(11)
    found = observe(
        model_of(net),
        x,
        CalibrationRequest({"stem.clip": None, "sum": None}, {"pw": 1, "logits": -1}, mean_images=5),
        execution=Execution(1, 4),
    )
    clip, total = tensors(net, ["stem.clip", "sum"], x)
    pw, logits = tensors(net, ["pw", "logits"], x[:5])
    for name, values in (("stem.clip", clip), ("sum", total)):
        histogram = found.histograms[name]
        assert (histogram.low, histogram.high) == pytest.approx((values.min(), values.max()), abs=1e-5)
        assert histogram.total == values.size
    np.testing.assert_allclose(found.means["pw"], pw.mean(axis=(0, 2, 3)), atol=1e-5)  # float32 sums in another order
    np.testing.assert_allclose(found.means["logits"], logits.mean(axis=0), atol=1e-5)
    assert found.images == 11


def test_the_batch_changes_nothing_but_memory(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    x = pixels(6)
    one, many = (observe(model_of(net), x, SUM, execution=Execution(1, batch)).histograms["sum"] for batch in (1, 6))
    assert one.exponent == many.exponent
    assert one.zeros == many.zeros
    assert np.abs(one.counts - many.counts).sum() <= 0.01 * one.counts.sum()  # a sum may round across a bin's edge


def test_the_graph_that_is_observed_stays_as_it_was(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    model = model_of(net)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    observe(model, pixels(1), CalibrationRequest({"sum": None}, {"pw": 1}, mean_images=1))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_progress_counts_images(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    events: list[Event] = []
    observe(model_of(net), pixels(5), SUM, execution=Execution(1, 2), emit=events.append)
    assert events == [Progress("calibrate", done, 5) for done in (2, 4, 5)]


@pytest.mark.parametrize(
    ("shape", "dtype", "match"),
    [
        ((0, 12, 12, 3), np.uint8, "calibration set is empty"),
        ((2, 12, 12, 3), np.float32, "calibration data is float32.*takes uint8"),
        ((2, 3, 12, 12), np.uint8, r"shape \[2, 3, 12, 12\].*'pixels'"),
        ((2, 12, 12), np.uint8, r"shape \[2, 12, 12\]"),
        ((2, 12, 12, 3), np.int64, "calibration data is int64.*takes uint8"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(
    net: onnx.ModelProto, shape: tuple[int, ...], dtype: type, match: str
) -> None:
    with pytest.raises(QuantizationError, match=match):
        observe(model_of(net), np.zeros(shape, dtype), SUM)


def test_nan_activations_name_their_tensor(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    tensor = next(t for t in net.graph.initializer if t.name == "pw.w")
    tensor.CopyFrom(numpy_helper.from_array(np.full((8, 8, 1, 1), np.nan, np.float32), "pw.w"))
    with pytest.raises(QuantizationError, match="'pw' holds NaN or Inf"):
        observe(model_of(net), pixels(2), CalibrationRequest({"pw": None}))


def test_two_inputs_are_too_many(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    net.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(QuantizationError, match="2 inputs"):
        observe(model_of(net), pixels(1), SUM)


def test_a_tensor_of_unknown_rank_cannot_be_averaged(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    with pytest.raises(QuantizationError, match="no known rank"):
        observe(ir.from_proto(net), pixels(1), CalibrationRequest({"sum": None}, {"pw": 1}, mean_images=1))


def test_a_tensor_that_the_graph_lacks_is_named(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    with pytest.raises(QuantizationError, match=r"no tensor 'no\.such'"):
        observe(model_of(net), pixels(1), CalibrationRequest({"sum": None, "no.such": None}))
    with pytest.raises(QuantizationError, match="no tensor 'gone'"):
        observe(model_of(net), pixels(1), CalibrationRequest({"sum": None}, {"gone": 1}, mean_images=1))


def float_net() -> ir.Model:
    """A graph whose input is float: x [N, 4] to y [N, 2]."""
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])],
        [weight],
    )
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_named_by_its_index(bad: float) -> None:
    x = np.zeros((12, 4), np.float32)
    x[9, 2] = bad
    with pytest.raises(QuantizationError, match="calibration image 9 holds NaN or Inf"):
        observe(float_net(), x, CalibrationRequest({"y": None}), execution=Execution(1, 4))


def test_weighted_counts_follow_the_channels(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    x, weights = pixels(3), np.arange(1, 9) ** 3
    request = CalibrationRequest({"stem.clip": ChannelImportance(1, weights)})
    histogram = observe(model_of(net), x, request, execution=Execution(1, 2)).histograms["stem.clip"]
    (clip,) = tensors(net, ["stem.clip"], x)
    channel = np.broadcast_to(np.arange(8)[:, None, None], clip[0].shape).reshape(-1)
    expected = 0
    for image in clip:  # the sample starts anew with every image
        values, channels = image.reshape(-1)[::THINNING], channel[::THINNING]
        expected += int(weights[channels[values != 0]].sum())
    assert histogram.weighted.sum() == expected
    assert not histogram.weighted[histogram.counts == 0].any()


def test_where_nothing_is_asked_for_nothing_runs(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    found = observe(model_of(net), pixels(3), CalibrationRequest({}))
    assert (found.images, found.histograms, found.means) == (3, {}, {})
    means = CalibrationRequest({}, {"pw": 1}, mean_images=2)  # of the first two images alone
    assert observe(model_of(net), pixels(3), means).mean_images == 2
