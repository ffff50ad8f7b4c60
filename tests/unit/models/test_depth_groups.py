"""Depth groups compose to the model and own every parameter once."""

import pytest
import torch
from torch import nn

from edgeft.models.architectures import build, replace_classifier_
from edgeft.models.stages import chain, depth_groups

# one per family, and the ways out: composed children (convnext), trunk and head (vit, shufflenet)
NAMES = {
    "timm/test_efficientnet": ["stem", "blocks.0", "top", "head"],
    "timm/mobilenetv3_small_050": ["stem", "blocks.0", "top", "head"],
    "timm/test_resnet": ["stem", "layer1", "layer4", "head"],
    "timm/test_convnext": ["stem", "stages.0", "head"],
    "timm/test_vit": ["trunk", "head"],
    "torchvision/resnet18": ["stem", "layer1", "layer4", "head"],
    "torchvision/mobilenet_v2": ["features.0", "features.18", "head"],
    "torchvision/mobilenet_v3_small": ["features.0", "features.12", "head"],
    "torchvision/shufflenet_v2_x0_5": ["trunk", "head"],
}


def model(base: str, dropout: float = 0.3) -> nn.Module:
    library, _, name = base.partition("/")
    module = build(library, name, dropout=dropout, hub=False)
    replace_classifier_(module, 3, dropout)
    return module.eval()


@pytest.mark.parametrize("base", NAMES)
def test_groups_compose_to_the_model(base: str) -> None:
    torch.manual_seed(0)
    module = model(base)
    groups = depth_groups(module)
    found = [name for name, _ in groups]
    assert [name for name in found if name in NAMES[base]] == NAMES[base]
    pixels = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(chain(groups).eval()(pixels), module(pixels))


@pytest.mark.parametrize("base", NAMES)
def test_groups_own_every_parameter_once(base: str) -> None:
    module = model(base)
    owned = [id(parameter) for _, group in depth_groups(module) for parameter in group.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in module.parameters())


@pytest.mark.parametrize("base", [base for base in NAMES if base != "timm/test_convnext"])
def test_the_head_is_the_new_classifier_alone(base: str) -> None:
    name, head = depth_groups(model(base))[-1]
    assert name == "head"
    shapes = [tuple(parameter.shape) for parameter in head.parameters()]
    assert len(shapes) == 2
    assert shapes[0][0] == 3
    assert shapes[1] == (3,)


@pytest.mark.parametrize(
    "base", ["timm/test_efficientnet", "timm/test_resnet", "torchvision/mobilenet_v2", "torchvision/resnet18"]
)
def test_dropout_acts_in_training_only(base: str) -> None:
    module = model(base, dropout=0.5)
    head = depth_groups(module)[-1][1]
    features = torch.ones(64, next(head.parameters()).shape[1])
    head.train()
    assert not torch.equal(head(features)[0], head(features)[1])
    head.eval()
    assert torch.equal(head(features)[0], head(features)[1])


def test_gradients_reach_the_trunk_of_any_model() -> None:
    module = model("timm/test_vit")
    composed = chain(depth_groups(module))
    composed(torch.randn(1, 3, 160, 160)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
