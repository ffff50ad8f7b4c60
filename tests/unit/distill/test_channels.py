"""Pruned channels and dropped blocks: the same numbers as channels set to 0, found again from the checkpoint."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from edgeft.core.errors import UsageError
from edgeft.distill.blocks import same_shaped
from edgeft.distill.channels import ROUND, multiply_adds, prune_
from edgeft.models import shapes
from edgeft.models.checkpoint import CheckpointMeta, load, save
from edgeft.models.stages import chain, depth_groups
from edgeft.runtime.preprocess import InputContract

NETS = (
    *("timm/resnet18", "torchvision/mobilenet_v2", "timm/tf_efficientnet_lite0"),
    *("timm/mobilenetv3_small_100", "timm/efficientnet_b0", "timm/convnext_atto", "torchvision/densenet121"),
)
CONTRACT = InputContract(64, 64, "squash", None, "bilinear", (127.5,) * 3, (127.5,) * 3)


def network(name: str) -> nn.Module:
    library, _, architecture = name.partition("/")
    torch.manual_seed(0)
    module = (
        timm.create_model(architecture, num_classes=3)
        if library == "timm"
        else torchvision.models.get_model(architecture, num_classes=3)
    )
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def importance(module: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(len(each), generator=generator) for name, each in module.named_parameters()}


def silenced(module: nn.Module, pruned: nn.Module) -> nn.Module:
    """Return `module` with those channels set to 0 that `pruned` lacks: found by their batch-norm biases' values."""
    quiet = copy.deepcopy(module)
    smaller = dict(pruned.named_modules())
    for name, part in quiet.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            kept = torch.isin(part.bias, smaller[name].bias)
            part.weight.data[~kept] = 0
            part.bias.data[~kept] = 0
        elif isinstance(part, nn.Conv2d) and part.bias is not None and len(part.bias) > len(smaller[name].bias):
            kept = torch.isin(part.bias, smaller[name].bias)  # of squeeze-and-excite
            part.bias.data[~kept] = 0
            part.weight.data[~kept] = 0
    return quiet


@pytest.mark.parametrize("name", NETS)
def test_a_share_of_the_multiply_adds_goes_and_widths_suit_kernels(name: str) -> None:
    module = network(name)
    pixels = torch.randn(1, 3, 64, 64)
    whole = multiply_adds(module, pixels)
    widths = {name: part.out_channels for name, part in module.named_modules() if isinstance(part, nn.Conv2d)}
    before, after = prune_(module, pixels, importance(module), 0.3)
    assert before == whole
    assert after == multiply_adds(module, pixels)
    assert 0.3 <= 1 - after / before < 0.4
    assert module(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    taken = {name for name, width in widths.items() if module.get_submodule(name).out_channels < width}
    assert taken
    if "densenet" not in name:  # there, maps of several layers stand side by side
        assert all(module.get_submodule(each).out_channels % ROUND == 0 for each in taken)


@pytest.mark.parametrize("name", [*NETS[:5], "torchvision/mobilenet_v3_small"])
def test_taking_channels_out_is_setting_them_to_zero(name: str) -> None:
    module = network(name)
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            nn.init.normal_(part.bias, 0, 0.1)
    pruned, pixels = copy.deepcopy(module), torch.randn(2, 3, 64, 64)
    prune_(pruned, pixels, importance(module), 0.3)
    with torch.no_grad():
        before, found, expected = (each(pixels) for each in (module, pruned, silenced(module, pruned)))
    assert not torch.allclose(expected, before, atol=1e-3)
    assert torch.allclose(found, expected, atol=2e-5 * max(1.0, float(expected.abs().max())))


def test_what_matters_stays() -> None:
    module = network("timm/resnet18")
    own = importance(module)
    own["layer2.0.conv1.weight"][:64] = 1e9
    own["layer2.0.conv1.weight"][64:] = 0
    kept = module.get_submodule("layer2.0.bn1").bias[:64].clone()
    prune_(module, torch.randn(1, 3, 64, 64), own, 0.4)
    assert torch.isin(kept, module.get_submodule("layer2.0.bn1").bias).all()
    assert module.get_submodule("layer2.0.conv1").out_channels < 128


class Steps(nn.Module):
    """Two blocks of as many multiply-adds: the first on wide maps of few channels, or half of it depthwise."""

    def __init__(self, *, depthwise: bool) -> None:
        super().__init__()
        deep, stride, wide = (16, 1, 41) if depthwise else (64, 4, 128)
        self.stem = nn.Conv2d(3, 16, 1)
        self.first, self.first_out = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.spatial = nn.Conv2d(32, 32, 3, padding=1, groups=32) if depthwise else nn.Identity()
        self.middle = nn.Conv2d(16, deep, 1, stride=stride)
        self.second, self.second_out = nn.Conv2d(deep, wide, 1), nn.Conv2d(wide, deep, 1)
        self.classifier = nn.Linear(deep, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.middle(self.first_out(self.spatial(self.first(self.stem(pixels)).relu())))
        logits: Tensor = self.classifier(self.second_out(self.second(maps).relu()).mean((2, 3)))
        return logits


@pytest.mark.parametrize("depthwise", [False, True])
def test_of_as_many_multiply_adds_those_go_that_take_longer(*, depthwise: bool) -> None:
    module, pixels = Steps(depthwise=depthwise).eval(), torch.randn(1, 3, 32, 32)
    weights = {name: each.numel() for name, each in module.named_parameters() if name.endswith("weight")}
    first = 1024 * sum(weights.get(f"{name}.weight", 0) for name in ("first", "spatial", "first_out"))
    second = (1024 if depthwise else 64) * (weights["second.weight"] + weights["second_out.weight"])
    assert first == pytest.approx(second, rel=0.02)
    own = {name: torch.full((len(each),), 1e9) for name, each in module.named_parameters()}
    for name in ("first", "second", "spatial"):
        for key in {f"{name}.weight", f"{name}.bias"} & own.keys():
            own[key] = torch.full_like(own[key], {"first": 1.0, "second": 0.7, "spatial": 0.0}[name] / len(own[key]))
    prune_(module, pixels, own, 0.05)
    assert module.first.out_channels == 16
    assert module.second.out_channels == (41 if depthwise else 128)


@pytest.mark.parametrize("name", NETS)
def test_a_checkpoint_finds_back_to_its_widths(name: str, tmp_path: Path) -> None:
    module, pixels = network(name), torch.randn(2, 3, 64, 64)
    prune_(module, pixels, importance(module), 0.3)
    save(tmp_path, module, CheckpointMeta(name, ("a", "b", "c"), CONTRACT, 0.0, narrowed=True))
    again = load(tmp_path)[0]
    assert torch.allclose(again(pixels), module(pixels), rtol=1e-4, atol=1e-4)  # in another memory layout
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in again.state_dict().items())
    for name_, part in again.named_modules():
        twin = module.get_submodule(name_)
        for size in ("in_channels", "out_channels", "groups", "num_features"):
            assert getattr(part, size, None) == getattr(twin, size, None), name_
    groups = depth_groups(again)
    assert torch.allclose(chain(groups).eval()(pixels), module(pixels), atol=1e-4)
    prune_(again, pixels, importance(again), 0.2)  # and can be pruned once more


def test_blocks_can_be_left_out_and_found_again(tmp_path: Path) -> None:
    module, pixels = network("timm/tf_efficientnet_lite0"), torch.randn(2, 3, 64, 64)
    names = same_shaped(module, pixels)
    assert names == [name for name, part in module.named_modules() if getattr(part, "has_skip", False)]
    shapes.drop_(module, names[0])
    assert names[0] not in same_shaped(module, pixels)
    assert shapes.dropped(module) == (names[0],)
    save(
        tmp_path,
        module,
        CheckpointMeta("timm/tf_efficientnet_lite0", ("a", "b", "c"), CONTRACT, 0.0, dropped=(names[0],)),
    )
    assert torch.allclose(load(tmp_path)[0](pixels), module(pixels), rtol=1e-4, atol=1e-4)
    assert same_shaped(network("timm/resnet18"), pixels)[0] == "layer1.0"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("torchvision/mobilenet_v2", "InvertedResidual"),
        ("torchvision/mobilenet_v3_small", "InvertedResidual"),
        ("torchvision/efficientnet_b0", "MBConv"),
        ("timm/test_convnext", "ConvNeXtBlock"),
    ],
)
def test_what_can_be_left_out_are_whole_blocks_in_either_library(name: str, kind: str) -> None:
    module = network(name)
    found = same_shaped(module, torch.randn(1, 3, 64, 64))
    assert {type(module.get_submodule(each)).__name__ for each in found} == {kind}


def test_more_than_there_is_cannot_be_taken() -> None:
    module, pixels = network("timm/mobilenetv3_small_100"), torch.randn(1, 3, 64, 64)
    with pytest.raises(UsageError, match=r"0\.99 of the multiply-adds, and at most 0\.\d+ can be taken"):
        prune_(module, pixels, importance(module), 0.99)
    with pytest.raises(UsageError, match="cannot be followed channel by channel"):
        prune_(torchvision.models.shufflenet_v2_x1_0(), pixels, {}, 0.3)


@pytest.mark.parametrize("name", ["test_efficientnet_gn", "test_nfnet"])
def test_a_network_that_is_cut_wrongly_is_refused_by_name(name: str) -> None:
    module = timm.create_model(name, num_classes=2)
    with pytest.raises(UsageError, match=rf"{type(module).__name__} cannot (run with fewer|be followed)"):
        prune_(module, torch.randn(1, 3, 96, 96), {}, 0.1)
