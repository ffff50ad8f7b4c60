"""A small residual network that every target's placement has something to say about."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 12, 16, 4


def build_residual(seed: int = 0) -> onnx.ModelProto:
    """Stem, a block with an identity shortcut, a block with a downsampling one, pool, Gemm; `pixels` to `scores`."""
    rng = np.random.default_rng(seed)
    nodes, arrays = [], {"std": np.float32(1 / 64), "mean": np.uint8(127), "temperature": np.float32(1)}

    def conv(x: str, name: str, outputs: int, inputs: int, kernel: int, stride: int = 1) -> str:
        arrays[f"{name}.w"] = (
            rng.normal(size=(outputs, inputs, kernel, kernel)) / np.sqrt(inputs * kernel * kernel)
        ).astype(np.float32)
        arrays[f"{name}.b"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, pads=pads, strides=[stride] * 2)
        )
        return name

    def op(op_type: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        return name

    op("Transpose", "image", "pixels", perm=[0, 3, 1, 2])
    x = op("DequantizeLinear", "x", "image", "std", "mean")
    x = op("Relu", "stem.relu", conv(x, "stem", CHANNELS, 3, 3))
    y = conv(op("Relu", "a1.relu", conv(x, "a1", CHANNELS, CHANNELS, 3)), "a2", CHANNELS, CHANNELS, 3)
    x = op("Relu", "a.relu", op("Add", "a.sum", y, x))
    y = conv(op("Relu", "b1.relu", conv(x, "b1", 2 * CHANNELS, CHANNELS, 3, 2)), "b2", 2 * CHANNELS, 2 * CHANNELS, 3)
    x = op("Relu", "b.relu", op("Add", "b.sum", conv(x, "b.down", 2 * CHANNELS, CHANNELS, 1, 2), y))
    x = op("Flatten", "flat", op("GlobalAveragePool", "pool", x))
    arrays["head.w"] = rng.normal(size=(CLASSES, 2 * CHANNELS)).astype(np.float32)
    arrays["head.b"] = rng.normal(size=CLASSES).astype(np.float32)
    nodes.append(helper.make_node("Gemm", [x, "head.w", "head.b"], ["logits"], "head", transB=1))
    op("Softmax", "scores", op("Div", "scaled", "logits", "temperature"), axis=1)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "residual", [pixels], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def residual() -> onnx.ModelProto:
    return build_residual()


@pytest.fixture
def pixels() -> Callable[[int], np.ndarray]:
    def drawn(count: int) -> np.ndarray:
        rng = np.random.default_rng(count)
        coarse = rng.normal(128, 60, (count, SIDE // 4, SIDE // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
        return np.clip(coarse + rng.normal(0, 12, (count, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    return drawn
