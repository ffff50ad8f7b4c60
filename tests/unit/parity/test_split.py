"""What the error is made of: each planted cause shows in its own part."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgeft.graph.taps import with_outputs
from edgeft.parity.align import Pair, align
from edgeft.parity.grids import grids
from edgeft.parity.split import Split, split, without_rounding
from edgeft.quantize.rows import ArrayRows

Fault: TypeAlias = Callable[[onnx.ModelProto], None]
Plant: TypeAlias = Callable[[onnx.ModelProto, Fault], onnx.ModelProto]


def last(base: onnx.ModelProto, new: onnx.ModelProto) -> Pair:
    return align(base, new)[-1]


def parts(base: onnx.ModelProto, new: onnx.ModelProto, rows: ArrayRows) -> Split:
    found = split(base, new, rows, last(base, new), 1)
    assert found is not None
    return found


def test_a_graph_against_itself_has_no_activation_grids(float_net: onnx.ModelProto, rows: ArrayRows) -> None:
    assert split(float_net, float_net, rows, last(float_net, float_net), 1) is None


def test_total_is_the_difference_of_the_logits(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    found, pair = parts(float_net, int8_net, rows), last(float_net, int8_net)
    outputs = []
    for model, name in ((float_net, pair.name), (int8_net, pair.seen)):
        session = ort.InferenceSession(with_outputs(model, [name]).SerializeToString())
        outputs.append(session.run([name], {"pixels": rows.values})[0].astype(np.float64))
    assert found.tensor == "logits"
    assert found.n == 12
    assert found.total == pytest.approx(np.abs(outputs[1] - outputs[0]).mean(), rel=1e-4)
    assert 0 < found.total <= found.weights + found.clipping + found.rounding + found.runtime


def test_other_weights_show_as_weights(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows, planted: Plant
) -> None:
    def double(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "c1::weight::scale")
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))

    before, after = parts(float_net, int8_net, rows), parts(float_net, planted(int8_net, double), rows)
    assert after.weights > 5 * before.weights
    assert after.weights > 3 * (after.rounding + after.runtime)


def test_narrow_ranges_show_as_clipping_and_coarse_ones_as_rounding(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows, planted: Plant
) -> None:
    def scaled(factor: float) -> Fault:
        def change(model: onnx.ModelProto) -> None:
            node = next(
                n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0].startswith(("c1", "r1"))
            )
            tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))

        return change

    sound = parts(float_net, int8_net, rows)
    narrow, coarse = (parts(float_net, planted(int8_net, scaled(factor)), rows) for factor in (0.33, 40.0))
    assert narrow.clipping > 10 * sound.clipping
    assert narrow.clipping > narrow.weights + narrow.rounding
    assert coarse.rounding > 3 * sound.rounding
    assert coarse.clipping <= sound.clipping
    assert narrow.weights == pytest.approx(coarse.weights) == pytest.approx(sound.weights)


def test_clipping_to_the_grids_is_the_quantized_graph_without_rounding(
    int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    clipped = without_rounding(int8_net, grids(int8_net))
    assert clipped is not None
    onnx.checker.check_model(clipped)
    assert not any(node.op_type == "QuantizeLinear" for node in clipped.graph.node)
    name = next(n.output[0] for n in clipped.graph.node if n.op_type == "Clip" and f"{n.output[0]}::low" in n.input)
    session = ort.InferenceSession(with_outputs(clipped, [name]).SerializeToString())
    values, grid = session.run([name], {"pixels": rows.values})[0], grids(int8_net)[name]
    assert grid.low - 1e-6 <= values.min()
    assert values.max() <= grid.high + 1e-6


def test_integers_that_an_operator_reads_itself_are_left_alone(int8_net: onnx.ModelProto, planted: Plant) -> None:
    def reader(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        model.graph.node.append(onnx.helper.make_node("Identity", [node.output[0]], ["integers"]))

    assert without_rounding(planted(int8_net, reader), {}) is None
