"""A classifier as a chain of groups from stem to head: `head(...(blocks(stem(x))))` equals `model(x)`.

What freezes, what is cached and which learning rate a layer gets are all said in terms of these groups. They share
their parameters with the model they were taken from.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn
from torchvision.models import EfficientNet as TorchvisionEfficientNet
from torchvision.models import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.models import MobileNetV3 as TorchvisionMobileNetV3
from torchvision.models import ResNet as TorchvisionResNet

from edgeft.models.architectures import classifier_prefix
from edgeft.models.probing import at_rest

Groups: TypeAlias = list[tuple[str, nn.Module]]

_CONTAINERS = ("blocks", "features", "layers", "stages")
_PROBE_ATOL = 1e-4


def depth_groups(module: nn.Module) -> Groups:
    """Return named groups from stem to head whose composition is the model; the last one is `head`.

    Known families are split at their blocks. For any other model its children are tried in order, and kept where they
    reproduce the model on a random image; otherwise there are two groups, `trunk` and `head`.
    """
    own = getattr(module, "groups", None)  # a text classifier's
    if callable(own):
        groups: Groups = own()
        return groups
    known = _known(module)
    if known is not None:
        return known
    children = list(_flat_children(module))
    return children if _reproduces(module, children) else _trunk_and_head(module)


def chain(groups: Groups) -> nn.Sequential:
    """Return the composition of `groups`."""
    return nn.Sequential(*(group for _, group in groups))


def _known(module: nn.Module) -> Groups | None:
    if isinstance(module, EfficientNet):
        drop = nn.Dropout(module.drop_rate)
        return [
            ("stem", nn.Sequential(module.conv_stem, module.bn1)),
            *_numbered("blocks", module.blocks),
            ("top", nn.Sequential(module.conv_head, module.bn2, module.global_pool)),
            ("head", nn.Sequential(drop, module.classifier)),
        ]
    if isinstance(module, MobileNetV3):
        top = (module.get_submodule(name) for name in ("global_pool", "conv_head", "norm_head", "act2", "flatten"))
        return [
            ("stem", nn.Sequential(module.get_submodule("conv_stem"), module.get_submodule("bn1"))),
            *_numbered("blocks", module.get_submodule("blocks").children()),
            ("top", nn.Sequential(*top)),
            ("head", nn.Sequential(nn.Dropout(module.drop_rate), module.get_submodule("classifier"))),
        ]
    if isinstance(module, TimmResNet):
        return [
            ("stem", nn.Sequential(*(module.get_submodule(name) for name in ("conv1", "bn1", "act1", "maxpool")))),
            *((f"layer{i}", getattr(module, f"layer{i}")) for i in range(1, 4)),
            ("layer4", nn.Sequential(module.get_submodule("layer4"), module.get_submodule("global_pool"))),
            ("head", nn.Sequential(nn.Dropout(float(module.drop_rate)), module.get_submodule("fc"))),
        ]
    if isinstance(module, TorchvisionResNet):
        return [
            ("stem", nn.Sequential(module.conv1, module.bn1, module.relu, module.maxpool)),
            *((f"layer{i}", getattr(module, f"layer{i}")) for i in range(1, 4)),
            ("layer4", nn.Sequential(module.layer4, module.avgpool, nn.Flatten(1))),
            ("head", module.fc),
        ]
    if isinstance(module, TorchvisionMobileNetV2 | TorchvisionMobileNetV3 | TorchvisionEfficientNet):
        pool = getattr(module, "avgpool", None) or nn.AdaptiveAvgPool2d(1)
        *hidden, drop, linear = module.classifier
        *body, (name, last) = _numbered("features", module.features)
        return [
            *body,
            (name, nn.Sequential(last, pool, nn.Flatten(1), *hidden)),
            ("head", nn.Sequential(drop, linear)),
        ]
    return None


def _numbered(name: str, blocks: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    return ((f"{name}.{index}", block) for index, block in enumerate(blocks))


def _flat_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    *body, (_, head) = module.named_children()
    for name, child in body:
        if name in _CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _numbered(name, child)
        else:
            yield name, child
    yield "head", head


def _reproduces(module: nn.Module, groups: Groups) -> bool:
    config = getattr(module, "pretrained_cfg", None) or {}
    shape = config.get("input_size", (3, 224, 224))
    pixels = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with at_rest(module):
            composed: Tensor = chain(groups).eval()(pixels)
            return bool(torch.allclose(composed, module(pixels), atol=_PROBE_ATOL))
    except (RuntimeError, TypeError, NotImplementedError, AttributeError, ValueError, IndexError):
        return False  # the children do not compose: that is what is being asked


def _trunk_and_head(module: nn.Module) -> Groups:
    head = module.get_submodule(classifier_prefix(module).removesuffix("."))
    return [("trunk", _Trunk(module, head)), ("head", head)]


class _Trunk(nn.Module):
    """A model up to the input of its classifier; owns every parameter but the classifier's."""

    _model: nn.Module
    _head: nn.Module

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_head", head)  # both not registered: the model's parameters include the head's
        for path, part in model.named_modules():
            name = path.replace(".", "_")
            if part is head or path == "":
                continue
            if not any(part.children()):
                self.add_module(name, part)
        leaves = {id(parameter) for parameter in self.parameters()} | {id(p) for p in head.parameters()}
        for path, parameter in model.named_parameters():
            if id(parameter) not in leaves:
                self.register_parameter(path.replace(".", "_"), parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the classifier is given, [N, D], for x float32 [N, 3, H, W]."""
        seen: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self._model(x)
        finally:
            hook.remove()
        return seen[0]

    def train(self, mode: bool = True) -> "_Trunk":  # noqa: FBT001, FBT002 - torch's signature
        """Set training mode, also on the containers of the model that are not registered here."""
        self._model.train(mode)
        super().train(mode)
        return self
