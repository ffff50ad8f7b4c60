"""A small deployment graph with every kind of layer that the first version quantizes, and a data folder for it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 12, 8, 3


def build_net(seed: int = 0) -> onnx.ModelProto:
    """Conv, Clip, depthwise, pointwise, residual Add, MaxPool, GlobalAveragePool, Gemm; `pixels` to `scores`."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_t(4, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    arrays = {
        "std": np.float32(1 / 64),
        "mean": np.uint8(127),
        "low": np.float32(0),
        "high": np.float32(6),
        "temperature": np.float32(1),
        "stem.w": weight(CHANNELS, 3, 3, 3),
        "stem.b": weight(CHANNELS),
        "dw.w": weight(CHANNELS, 1, 3, 3),
        "dw.b": weight(CHANNELS),
        "pw.w": weight(CHANNELS, CHANNELS, 1, 1),
        "head.w": weight(CLASSES, CHANNELS),
        "head.b": weight(CLASSES),
    }
    node = helper.make_node
    nodes = [
        node("Transpose", ["pixels"], ["image"], "image", perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["image", "std", "mean"], ["x"], "x"),
        node("Conv", ["x", "stem.w", "stem.b"], ["stem"], "stem", pads=[1, 1, 1, 1]),
        node("Clip", ["stem", "low", "high"], ["stem.clip"], "stem.clip"),
        node("Conv", ["stem.clip", "dw.w", "dw.b"], ["dw"], "dw", pads=[1, 1, 1, 1], group=CHANNELS),
        node("Relu", ["dw"], ["dw.relu"], "dw.relu"),
        node("Conv", ["dw.relu", "pw.w"], ["pw"], "pw"),
        node("Add", ["pw", "stem.clip"], ["sum"], "sum"),
        node("MaxPool", ["sum"], ["max"], "max", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["max"], ["pool"], "pool"),
        node("Flatten", ["pool"], ["flat"], "flat"),
        node("Gemm", ["flat", "head.w", "head.b"], ["logits"], "head", transB=1),
        node("Div", ["logits", "temperature"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["scores"], "scores", axis=1),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "net", [pixels], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def smooth_pixels(count: int, seed: int = 0) -> np.ndarray:
    """Images with neighbouring pixels alike, as photographs have: uint8 [count, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 60, (count, SIDE // 4, SIDE // 4, 3))
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2) + rng.normal(0, 12, (count, SIDE, SIDE, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


@pytest.fixture
def net() -> onnx.ModelProto:
    return build_net()


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    return smooth_pixels


@pytest.fixture
def operators_run(tmp_path: Path) -> Callable[[onnx.ModelProto], list[str]]:
    """Return the operator types of onnxruntime's own optimised graph of a model."""

    def operators(model: onnx.ModelProto) -> list[str]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options)
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]

    return operators


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A data stage's folder: 60 train, 30 val, 10 test rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(1)
    splits = ["train"] * 60 + ["val"] * 30 + ["test"] * 10
    labels = rng.integers(0, CLASSES, len(splits))
    names = [f"class{k}" for k in range(CLASSES)]
    rows = [
        {
            "index": i,
            "path": f"{i}.png",
            "class": names[label],
            "label": int(label),
            "group": str(i),
            "split": split,
            "sha256": f"{i:064x}",
            "slices": {},
        }
        for i, (split, label) in enumerate(zip(splits, labels, strict=True))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    contract = {
        "height": SIDE,
        "width": SIDE,
        "resize": "squash",
        "resize_to": None,
        "filter": "bilinear",
        "mean": [127.0] * 3,
        "std": [64.0] * 3,
    }
    head = {
        "schema": 2,
        "task": "image_classification",
        "classes": names,
        "ok_class": None,
        "input": contract,
        "counts": {},
        "n": len(rows),
        "audit": [],
        "quarantined": [],
    }
    (folder / "dataset.json").write_text(json.dumps(head))
    np.save(folder / "pixels.npy", smooth_pixels(len(rows), seed=2))
    return folder


@pytest.fixture
def encoder() -> onnx.ModelProto:
    """A feed-forward block over words and a classifier: two MatMuls of one tensor, one behind a Gelu, one Gemm."""
    width, hidden, classes, words = 12, 33, 3, 5
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_t(3, shape) / np.sqrt(shape[0])).astype(np.float32)

    arrays = {
        "up.w": weight(width, hidden),
        "up.b": weight(hidden),
        "gate.w": weight(width, hidden),
        "down.w": weight(hidden, width),
        "head.w": weight(classes, width),
        "head.b": weight(classes),
        "axes": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "up.w"], ["up"], "up"),
        node("Add", ["up", "up.b"], ["up.sum"], "up.sum"),
        node("Gelu", ["up.sum"], ["gelu"], "gelu"),
        node("MatMul", ["x", "gate.w"], ["gate"], "gate"),
        node("Mul", ["gelu", "gate"], ["hidden"], "hidden"),
        node("MatMul", ["hidden", "down.w"], ["down"], "down"),
        node("ReduceMean", ["down", "axes"], ["mean"], "mean", keepdims=0),
        node("Gemm", ["mean", "head.w", "head.b"], ["logits"], "head", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", words, width])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "encoder", [x], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
