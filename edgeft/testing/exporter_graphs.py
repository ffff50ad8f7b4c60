"""The graph of the exporters' exam, its pixels, and what they answer: by a reference and as numbers once computed."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.errors import EdgeftError
from edgeft.core.exporter import Exporter

SIDE, CHANNELS, CLASSES = 8, 4, 3
WIDE: Final = 32
"""Channels with which every target takes the convolution in integers."""
GOLDEN: Final = ((0.376793, 0.475248, 0.147959), (0.379676, 0.455805, 0.164519))
"""Scores of `classifier()` on `images(2)`, computed by torch in float64."""


class ExamError(EdgeftError):
    """The exporter does not keep its contract."""


def classifier(channels: int = CHANNELS) -> onnx.ModelProto:
    """Return a float deployment graph: `pixels` uint8 [N, 8, 8, 3] to `scores` float32 [N, 3]."""
    rng = np.random.default_rng(0)
    arrays = {
        "scale": np.float32(1 / 128),
        "zero_point": np.uint8(127),
        "conv.weight": rng.normal(0, 0.3, (channels, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.3, channels).astype(np.float32),
        "head.weight": rng.normal(0, 1, (CLASSES, channels)).astype(np.float32),
        "head.bias": rng.normal(0, 1, CLASSES).astype(np.float32),
        "temperature": np.float32(1.5),
    }
    node = helper.make_node
    nodes = [
        node("Transpose", ["pixels"], ["image"], "image", perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["image", "scale", "zero_point"], ["x"], "x"),
        node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["conv"], ["relu"], "relu"),
        node("GlobalAveragePool", ["relu"], ["pool"], "pool"),
        node("Flatten", ["pool"], ["flat"], "flat"),
        node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], "head", transB=1),
        node("Div", ["logits", "temperature"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["scores"], "scores", axis=1),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "classifier", [pixels], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Fail the exam with `message` unless `condition`."""
    if not condition:
        raise ExamError(message)


def saved(folder: Path, model: onnx.ModelProto | None = None) -> Path:
    """Return the file of `model`, or of the float classifier, in `folder`."""
    path = folder / "model.onnx"
    path.write_bytes((model or classifier()).SerializeToString(deterministic=True))
    return path


def images(count: int) -> npt.NDArray[np.uint8]:
    """Return `count` images of noise, the same for the same count."""
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def must_refuse(exporter: Exporter, graph: Path, out: Path, what: str) -> None:
    """Fail the exam where `exporter` lowers `graph`, which is `what`."""
    try:
        exporter.lower(graph, out)
    except EdgeftError:
        return
    raise ExamError(f"lower accepted {what}")
