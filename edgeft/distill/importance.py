r"""What the loss would change without a part of the network: how students are chosen from their teacher.

For a channel, a unit or a width c, to first order in its weights w_c (Molchanov et al. 2019, equation 8),

    I_c = mean over batches of (sum_{w in w_c} w dL/dw)^2

For a whole layer or block the loss is simply measured without it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeft.finetune.feeds import Input
from edgeft.finetune.sampling import Rows, batches, shuffled

Importance: TypeAlias = dict[str, Tensor]
"""float32 [rows] by parameter: importance of each index of its first axis."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Judge:
    """Labelled training rows that importance is measured on.

    Args:
        inputs: dataset rows [n] -> what the network takes.
        labels: int64 of all rows.
        rows: which rows.
    """

    inputs: Callable[[Rows], Input]
    labels: Tensor
    rows: Rows

    @classmethod
    def of(cls, inputs: Callable[[Rows], Input], labels: Tensor, train: Rows, count: int, seed: int) -> "Judge":
        """Return a judge on `count` of the rows `train`, drawn by `seed`."""
        return cls(inputs, labels, shuffled(train, seed)[:count])

    def losses(self, module: nn.Module) -> Iterator[Tensor]:
        """Yield the cross entropy of batch after batch, with its gradient's graph."""
        for part in batches(self.rows, _BATCH):
            yield functional.cross_entropy(module(self.inputs(part)), self.labels[part].to(_device(module)))

    def loss(self, module: nn.Module) -> float:
        """Return the mean cross entropy of `module` in eval mode."""
        with torch.no_grad():
            found = [float(each) for each in self.losses(module.eval())]
        return sum(found) / len(found)

    def importance(self, module: nn.Module) -> Importance:
        """Return the importance of each index of each parameter's first axis, in eval mode."""
        parameters = {name: each for name, each in module.eval().named_parameters() if each.is_floating_point()}
        wanted = [each.requires_grad for each in parameters.values()]
        total = {name: torch.zeros(len(each) if each.ndim else 1) for name, each in parameters.items()}
        for each in parameters.values():
            each.requires_grad_(True)
        count = 0
        for loss in self.losses(module):
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            count += 1
            for (name, weight), gradient in zip(parameters.items(), found, strict=True):
                if gradient is not None:
                    total[name] += (weight.detach() * gradient).reshape(len(total[name]), -1).sum(1).cpu() ** 2
        for each, before in zip(parameters.values(), wanted, strict=True):
            each.requires_grad_(before)
        return {name: each / count for name, each in total.items()}


def left_out(parts: Sequence[str], count: int, without: Callable[[Sequence[str]], float]) -> list[str]:
    """Return which `count` of `parts` to leave out, one after the other the one whose absence costs least.

    Args:
        parts: what may be left out.
        count: how many.
        without: the loss while these are left out.
    """
    gone: list[str] = []
    for _ in range(count):
        costs = {part: without([*gone, part]) for part in parts if part not in gone}
        gone.append(min(costs, key=lambda name: costs[name]))
    return gone


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
