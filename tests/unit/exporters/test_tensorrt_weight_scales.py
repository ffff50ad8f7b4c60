"""Near-dead channels: their scales become float16's, their weights move by no more than half of such a step."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.calibration import Execution
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.weight_scales import hold_weight_scales_, next_half


def layer(weight: np.ndarray, scale: np.ndarray) -> ir.Model:
    arrays = {"w": weight, "s": scale.astype(np.float32), "z": np.zeros(len(scale), np.int8)}
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"], "dq", axis=0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, weight.shape)
    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", [], [output], held)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def parts(model: ir.Model) -> tuple[np.ndarray, np.ndarray]:
    (node,) = model.graph
    weight, scale = (ir.convenience.get_const_tensor(value).numpy() for value in node.inputs[:2])
    return weight, scale


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(-12, -1), min_size=1, max_size=6))
def test_weights_move_by_at_most_half_a_step_that_float16_holds(seed: int, powers: list[float]) -> None:
    scale = np.array([10.0**power for power in [*powers, -2.0]], np.float32)
    weight = np.random.default_rng(seed).integers(-127, 128, (len(scale), 3, 2, 2)).astype(np.int8)
    model = layer(weight, scale)
    hold_weight_scales_(model)
    moved, held = parts(model)
    small = scale < 2.0**-14
    assert (held[small].astype(np.float16).astype(np.float32) == held[small]).all()
    assert (held[~small] == scale[~small]).all()
    wide = (slice(None), None, None, None)
    error = np.abs(moved * held[wide].astype(np.float64) - weight * scale[wide].astype(np.float64))
    assert (error <= held[wide] / 2 * (1 + 1e-9)).all()
    assert (moved[~small] == weight[~small]).all()
    assert not hold_weight_scales_(model).changed


def test_a_layer_that_is_tiny_as_a_whole_is_left() -> None:
    weight = np.full((2, 1, 1, 1), 100, np.int8)
    assert not hold_weight_scales_(layer(weight, np.array([1e-9, 2e-8]))).changed
    assert hold_weight_scales_(layer(weight, np.array([1e-9, 2e-2]))).changed == ("dq",)


def test_the_next_float16_is_never_below() -> None:
    values = np.array([1e-9, 6e-8, 1.3e-6, 6.1e-5, 0.1, 1.0])
    found = next_half(values).astype(np.float64)
    assert (found >= values).all()
    assert found[-1] == 1.0
    assert found[0] == pytest.approx(2.0**-24)


def test_a_net_with_dead_channels_stays_quantized_when_it_is_lowered(residual: onnx.ModelProto, tmp_path: Path) -> None:
    net = onnx.ModelProto()
    net.CopyFrom(residual)
    for tensor in net.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.ndim == 4:
            array[::3] *= 1e-7
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    exporter = TensorRtExporter()
    made = quantize_static(net, exporter.placement, x, static_method("gptq", 8, 0.0), execution=Execution(1))
    onnx.save(made.model, tmp_path / "net.onnx")
    file, *_ = exporter.lower(tmp_path / "net.onnx", tmp_path / "lowered")
    assert all(finding.expected for finding in exporter.lint(file))
    assert not [finding for finding in exporter.lint(file) if "too small for float16" in finding.reason]
