"""Architectures by name, with random weights, and how their classifier is replaced.

Building never opens a socket: only `hub=True` lets the library download its own weights.
"""

from typing import Any

import timm
import torch
import torchvision
from torch import nn

from edgeft.core.errors import DeviceError, UsageError
from edgeft.models.contracts import nearest

_HEAD_STD = 0.01
"""Spread of a new classifier's weights: logits start near zero, so the first steps do not shake the trunk."""


def build(library: str, architecture: str, *, dropout: float, hub: bool) -> nn.Module:
    """Return the architecture with its own classifier; weights are random, or the library's own where `hub`.

    `dropout` is for timm's architectures; torchvision's get theirs with the new classifier.

    Raises:
        UsageError: the library does not know the architecture.
        DeviceError: `hub`, and the weights could not be downloaded.
    """
    if not _exists(library, architecture):
        close = ", ".join(f"{library}/{name}" for name in nearest(library, architecture)) or "none"
        raise UsageError(f"model.base: {library} has no architecture {architecture!r}", hint=f"nearest: {close}")
    try:
        if library == "timm":
            module: nn.Module = timm.create_model(architecture, pretrained=hub, drop_rate=dropout)
        else:
            module = torchvision.models.get_model(architecture, weights="DEFAULT" if hub else None)
    except (OSError, RuntimeError) as error:
        if not hub:
            raise
        raise DeviceError(
            f"model.weights: hub: the weights of {library}/{architecture} could not be downloaded: {error}",
            hint="set model.weights to a file, or to package:NAME/path of an installed package",
        ) from error
    return module


def replace_classifier_(module: nn.Module, classes: int, dropout: float) -> nn.Linear:
    """Give `module` a new linear classifier with `classes` outputs (weights N(0, 0.01), bias 0) and return it.

    A torchvision model gets `dropout` in front of it; timm's architectures were built with theirs.

    Raises:
        UsageError: the architecture does not end in one linear layer.
    """
    reset = getattr(module, "reset_classifier", None)
    if callable(reset):
        reset(classes)
        head = module.get_classifier()  # type: ignore[operator] # timm's own protocol
    else:
        owner, name = _last_linear(module)
        old = getattr(owner, name) if not name.isdigit() else owner[int(name)]  # type: ignore[index] # a Sequential
        head = nn.Linear(old.in_features, classes)
        _put(owner, name, head, dropout)
    if not isinstance(head, nn.Linear):
        raise UsageError(
            f"model.base: {type(module).__name__} ends in {type(head).__name__}, not in one linear layer",
            hint="choose an architecture that classifies images, such as timm/tf_efficientnet_lite0",
        )
    nn.init.normal_(head.weight, std=_HEAD_STD)
    nn.init.zeros_(head.bias)
    return head


def classifier_prefix(module: nn.Module) -> str:
    """Return the parameter-name prefix of the classifier, e.g. "classifier." or "fc."."""
    get = getattr(module, "get_classifier", None)
    head = get() if callable(get) else None
    if head is None:
        owner, name = _last_linear(module)
        head = owner.get_submodule(name)
    return next(f"{name}." for name, child in module.named_modules() if child is head)


def _exists(library: str, architecture: str) -> bool:
    if library == "timm":
        return bool(timm.is_model(architecture))
    return architecture in torchvision.models.list_models(module=torchvision.models)


def _put(owner: nn.Module, name: str, head: nn.Linear, dropout: float) -> None:
    """Make `head` the child `name` of `owner`, behind the dropout that stands there already or a new one."""
    drops = [child for child in owner.children() if isinstance(child, nn.Dropout)]
    for child in drops:
        child.p = dropout
    owner.register_module(name, head if drops or not dropout else nn.Sequential(nn.Dropout(dropout), head))


def _last_linear(module: nn.Module) -> tuple[nn.Module, str]:
    """Return the owner and the name of the last linear layer in registration order."""
    found: tuple[str, Any] | None = None
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            found = name, child
    if found is None:
        raise UsageError(f"model.base: {type(module).__name__} has no linear classifier to replace")
    owner, _, name = found[0].rpartition(".")
    return module.get_submodule(owner), name


def channels_last_(module: nn.Module) -> nn.Module:
    """Lay out `module`'s 4-D weights as channels_last, the fast layout of convolutions on CPU and GPU; return it."""
    return module.to(memory_format=torch.channels_last)
