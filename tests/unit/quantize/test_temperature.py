import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.temperature import HIGHEST, LOWEST, fit_temperature, softmax, with_temperature


def test_scaling_the_logits_scales_the_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 3)).astype(np.float32)
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    base = fit_temperature(logits, labels)
    assert base == pytest.approx(1.0, abs=0.25)  # labels were drawn from these very scores
    assert fit_temperature(logits * 4, labels) == pytest.approx(4 * base, rel=1e-4)


def test_separable_and_useless_logits_stop_at_the_bounds() -> None:
    labels = np.array([0, 1, 0, 1])
    right = np.eye(2, dtype=np.float32)[labels]
    assert fit_temperature(right, labels) == LOWEST
    assert fit_temperature(-right, labels) == HIGHEST


def test_bad_input_is_refused() -> None:
    with pytest.raises(QuantizationError, match="no validation row"):
        fit_temperature(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    with pytest.raises(QuantizationError, match="NaN"):
        fit_temperature(np.array([[np.nan, 0.0]], np.float32), np.array([0]))


def test_the_initializer_is_replaced_in_a_copy(net: onnx.ModelProto) -> None:
    changed = with_temperature(net, 2.5)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in changed.graph.initializer}
    assert values["temperature"] == np.float32(2.5)
    assert {t.name: numpy_helper.to_array(t) for t in net.graph.initializer}["temperature"] == 1.0


def test_a_graph_without_a_temperature_is_refused(net: onnx.ModelProto) -> None:
    next(tensor for tensor in net.graph.initializer if tensor.name == "temperature").name = "tau"
    with pytest.raises(QuantizationError, match="'temperature'"):
        with_temperature(net, 1.0)
