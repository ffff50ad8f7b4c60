"""A small net for colour images: its float graph, and the int8 graph that `edgeft quantize` makes of it."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

SIDE, CLASSES = 16, 4


def images(count: int, seed: int = 0) -> np.ndarray:
    """Smooth colour images, uint8 [N, H, W, 3]; red is brighter than blue."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 4, 4, 3)) * np.array([1.0, 0.6, 0.25])
    return np.round(255 * np.kron(coarse, np.ones((1, SIDE // 4, SIDE // 4, 1)))).astype(np.uint8)


@pytest.fixture(scope="session")
def float_net() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    tensors: dict[str, np.ndarray] = {
        "scale": np.float32(1 / 64),
        "zero": np.uint8(127),
        "w0": rng.normal(0, 0.5, (8, 3, 3, 3)),
        "b0": rng.normal(0, 0.3, 8),
        "w1": rng.normal(0, 0.2, (12, 8, 3, 3)),
        "b1": rng.normal(0, 0.3, 12),
        "w2": rng.normal(0, 0.4, (12, 12, 1, 1)),
        "b2": rng.normal(0, 0.3, 12),
        "w3": rng.normal(0, 0.5, (CLASSES, 12)),
        "b3": rng.normal(0, 0.3, CLASSES),
        "temperature": np.float32(1.3),
    }
    node = helper.make_node
    nodes = [
        node("DequantizeLinear", ["pixels", "scale", "zero"], ["real"], "normalise"),
        node("Transpose", ["real"], ["image"], "to_nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["image", "w0", "b0"], ["c0"], "stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], "stem_act"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], "middle", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "middle_act"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "last"),
        node("Relu", ["c2"], ["r2"], "last_act"),
        node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w3", "b3"], ["logits"], "classifier", transB=1),
        node("Div", ["logits", "temperature"], ["scaled"], "temper"),
        node("Softmax", ["scaled"], ["scores"], "softmax", axis=1),
    ]
    kept = {name: value if value.dtype == np.uint8 else value.astype(np.float32) for name, value in tensors.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in kept.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def int8_net(float_net: onnx.ModelProto) -> onnx.ModelProto:
    return quantize_static(float_net, PLACEMENT, images(32), static_method("auto", 32, 0.0)).model


@pytest.fixture
def rows() -> ArrayRows:
    return ArrayRows("pixels", images(12, seed=7))


Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture
def planted() -> Callable[[onnx.ModelProto, Fault], onnx.ModelProto]:
    """Return a copy of a model with a fault in it."""

    def plant(model: onnx.ModelProto, fault: Fault) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        fault(copy)
        return copy

    return plant
