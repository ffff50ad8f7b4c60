"""Each fault that users plant by accident is found in its layer and named, and what mending it brings is predicted."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.parity.causes import Finding, diagnose
from edgeft.parity.layers import compare
from edgeft.quantize.rows import ArrayRows

Fault = Callable[[onnx.ModelProto], None]


def weights(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


def put(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(numpy_helper.to_array(tensor).dtype), name))


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda model: put(model, name, change(weights(model, name)))


def both(*faults: Fault) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        for fault in faults:
            fault(model)

    return plant


def with_channel(channel: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[channel] = value
        return array

    return change


def low_rank(array: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = array.reshape(len(array), -1)
    return array + (0.2 * rng.normal(size=(len(rows), 1)) @ rng.normal(size=(1, rows.shape[1]))).reshape(array.shape)


def shifted_zero_point(model: onnx.ModelProto) -> None:
    """The Q after `middle` writes one step too high; what it feeds reads as before."""
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0].startswith(("c1", "r1")))
    values = weights(model, node.input[2]) + 1
    model.graph.initializer.append(numpy_helper.from_array(values.astype(np.uint8), "off_by_one"))
    node.input[2] = "off_by_one"


def narrow_range(model: onnx.ModelProto) -> None:
    """Everything above a third of the range of `middle` is cut off."""
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0].startswith(("c1", "r1")))
    put(model, node.input[1], weights(model, node.input[1]) * np.float32(0.33))


def full_range(model: onnx.ModelProto) -> None:
    name = next(t.name for t in model.graph.initializer if t.name.startswith("c1::weight") and t.name.endswith("::q"))
    put(model, name, np.sign(weights(model, name)) * 127)


def scales_of(layer: str) -> Fault:
    def double(model: onnx.ModelProto) -> None:
        for part in ("weight", "bias"):
            name = f"{layer}::{part}::scale"
            put(model, name, 2 * weights(model, name))

    return double


FLOAT_FAULTS = {
    "colours in BGR": (changed("w0", lambda w: w[:, ::-1]), "stem", "channel order"),
    "a mean that is off": (changed("zero", lambda z: z - 20), "normalise", "zero point"),
    "a standard deviation that is off": (changed("scale", lambda s: 1.5 * s), "normalise", "scale"),
    "classes in another order": (
        both(changed("w3", lambda w: w[[1, 0, 3, 2]]), changed("b3", lambda b: b[[1, 0, 3, 2]])),
        "classifier",
        "output order",
    ),
    "one layer twice as large": (both(*(changed(n, lambda w: 2 * w) for n in ("w1", "b1"))), "middle", "scale"),
    "an adapter left unmerged": (changed("w1", low_rank), "middle", "weights"),
    "a dead channel": (
        both(changed("w1", with_channel(2, 0.0)), changed("b1", with_channel(2, -1.0))),
        "middle",
        "dead",
    ),
    "NaN in one channel": (changed("w1", with_channel(2, np.nan)), "middle", "not finite"),
}
INT8_FAULTS = {
    "one layer's scales doubled": (scales_of("c1"), "middle", "scale"),
    "a zero point off by one": (shifted_zero_point, "middle", "zero point"),
    "pairs that saturate": (full_range, "middle", "saturation"),
    "a range that is too narrow": (narrow_range, "middle", "clipping"),
}


def found(base: onnx.ModelProto, new: onnx.ModelProto, rows: ArrayRows) -> tuple[Finding, ...]:
    return diagnose(base, new, rows, compare(base, new, rows))


@pytest.mark.parametrize("name", FLOAT_FAULTS)
def test_a_fault_of_a_float_graph_is_found(
    name: str, float_net: onnx.ModelProto, rows: ArrayRows, planted: Callable[..., onnx.ModelProto]
) -> None:
    fault, layer, kind = FLOAT_FAULTS[name]
    findings = found(float_net, planted(float_net, fault), rows)
    assert [(item.layer, item.kind) for item in findings] == [(layer, kind)]
    assert findings[0].predicted_db > 90  # with the layer exact nothing but float rounding is left


@pytest.mark.parametrize("name", INT8_FAULTS)
def test_a_fault_of_an_int8_graph_is_found(
    name: str,
    float_net: onnx.ModelProto,
    int8_net: onnx.ModelProto,
    rows: ArrayRows,
    planted: Callable[..., onnx.ModelProto],
) -> None:
    fault, layer, kind = INT8_FAULTS[name]
    (first, *_) = found(float_net, planted(int8_net, fault), rows)
    assert (first.layer, first.kind) == (layer, kind)


def test_a_sound_int8_graph_has_no_finding(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    assert found(float_net, int8_net, rows) == ()
    assert found(float_net, float_net, rows) == ()


def test_the_predicted_effect_is_what_mending_the_layer_gives(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows, planted: Callable[..., onnx.ModelProto]
) -> None:
    """Doubled scales of an int8 layer: mended, the output is where the sound int8 graph has it, or nearer to float."""
    (first,) = found(float_net, planted(int8_net, scales_of("c1")), rows)
    tapped = compare(float_net, int8_net, rows).layers[-1].drifted.sqnr_db
    assert first.output_db < 15
    assert first.predicted_db > tapped - 1
