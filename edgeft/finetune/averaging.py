"""An exponential moving average of what is trained, for validation and for the checkpoint.

    average <- average + (1 - d) (weights - average),    d = min(decay, (1 + t) / (10 + t)) after step t = 0, 1, ...

d rises to `decay`, so that short runs forget their start, too. A tensor that does not move stays the same bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Averages of the trained parameters and the floating buffers of `module`; without a `decay` it holds none.

    Args:
        module: what is trained.
        decay: share of the average that a step keeps, 0 < decay < 1; None averages nothing.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self._module, self._decay = module, decay
        self.values: dict[str, Tensor] = {}

    def enrol_(self) -> None:
        """Begin with the present values of what is trained now and has no average yet."""
        if self._decay is not None:
            for name, tensor in self._trained():
                self.values.setdefault(name, tensor.detach().clone())

    def update_(self, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 0 over the whole run."""
        if self._decay is not None:
            kept, live = min(self._decay, (1 + step) / (10 + step)), self._module.state_dict()
            for name, average in self.values.items():
                average.lerp_(live[name], 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in the place of the weights for a while."""
        live = self._module.state_dict()
        weights = {name: live[name].clone() for name in self.values}
        self._module.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            self._module.load_state_dict(weights, strict=False)

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((name, tensor) for name, tensor in self._module.named_parameters() if tensor.requires_grad)
        kept = self._module.state_dict().keys()
        for name, buffer in self._module.named_buffers():
            if torch.is_floating_point(buffer) and name in kept:
                yield name, buffer
