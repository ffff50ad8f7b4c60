"""Parameter groups with their own learning rates, and the optimizer over them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer


def parameter_groups(
    groups: Sequence[tuple[str, nn.Module]], rates: Sequence[float], weight_decay: float
) -> list[dict[str, object]]:
    """Return the optimizer's groups: two per depth group, with and without weight decay.

    Biases, BatchNorm's scales and shifts and every other 1-D parameter are not decayed.

    Args:
        groups: depth groups from stem to head.
        rates: peak learning rate of each; kept as "peak" for the schedule.
        weight_decay: for weights with two or more dimensions.
    """
    result: list[dict[str, object]] = []
    for (name, module), rate in zip(groups, rates, strict=True):
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        for parameters, decay in ((weights, weight_decay), (others, 0.0)):
            if parameters:
                result.append({"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay, "name": name})
    return result


def rates_by_depth(count: int, lr: float, head_factor: float, decay: float = 1.0) -> list[float]:
    """Return peak rates from stem to head: the head has lr * head_factor, the group below it lr, then lr * decay, ...

    Discriminative learning rates (Howard & Ruder 2018, section 3.2).
    """
    body = [lr * decay**depth for depth in range(count - 1)]
    return [*reversed(body), lr * head_factor]


def optimizer(
    name: Literal["adamw", "sgd"], groups: list[dict[str, object]], momentum: float, device: torch.device
) -> Optimizer:
    """Return AdamW or Nesterov SGD over `groups`, in the fused form where the device has one."""
    fused = device.type in ("cpu", "cuda")
    if name == "adamw":
        return AdamW(groups, fused=fused)
    return SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=fused)


def set_rates_(target: Optimizer, factor: float) -> None:
    """Set every group's rate to its peak times `factor`."""
    for group in target.param_groups:
        group["lr"] = group["peak"] * factor
