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
from edgeft.quantize.calibration import Execution, observe


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
        observed=["stem.clip", "sum"],
        means={"pw": 1, "logits": -1},
        mean_images=5,
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
    one, many = (
        observe(model_of(net), x, observed=["sum"], execution=Execution(1, batch)).histograms["sum"] for batch in (1, 6)
    )
    assert one.exponent == many.exponent
    assert one.zeros == many.zeros
    assert np.abs(one.counts - many.counts).sum() <= 0.01 * one.counts.sum()  # a sum may round across a bin's edge


def test_the_graph_that_is_observed_stays_as_it_was(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    model = model_of(net)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    observe(model, pixels(1), observed=["sum"], means={"pw": 1}, mean_images=1)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_progress_counts_images(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    events: list[Event] = []
    observe(model_of(net), pixels(5), observed=["sum"], execution=Execution(1, 2), emit=events.append)
    assert events == [Progress("calibrate", done, 5) for done in (2, 4, 5)]


@pytest.mark.parametrize(
    ("shape", "dtype", "match"),
    [
        ((0, 12, 12, 3), np.uint8, "calibration set is empty"),
        ((2, 12, 12, 3), np.float32, "calibration data is float32.*takes uint8"),
        ((2, 3, 12, 12), np.uint8, r"shape \[2, 3, 12, 12\].*'pixels'"),
        ((2, 12, 12), np.uint8, r"shape \[2, 12, 12\]"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(
    net: onnx.ModelProto, shape: tuple[int, ...], dtype: type, match: str
) -> None:
    with pytest.raises(QuantizationError, match=match):
        observe(model_of(net), np.zeros(shape, dtype), observed=["sum"])


def test_nan_activations_name_their_tensor(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    tensor = next(t for t in net.graph.initializer if t.name == "pw.w")
    tensor.CopyFrom(numpy_helper.from_array(np.full((8, 8, 1, 1), np.nan, np.float32), "pw.w"))
    with pytest.raises(QuantizationError, match="'pw' holds NaN or Inf"):
        observe(model_of(net), pixels(2), observed=["pw"])


def test_two_inputs_are_too_many(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    net.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(QuantizationError, match="2 inputs"):
        observe(model_of(net), pixels(1), observed=["sum"])


def test_a_tensor_of_unknown_rank_cannot_be_averaged(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    with pytest.raises(QuantizationError, match="no known rank"):
        observe(ir.from_proto(net), pixels(1), observed=["sum"], means={"pw": 1}, mean_images=1)
