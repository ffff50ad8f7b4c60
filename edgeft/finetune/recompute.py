"""Gradient checkpointing (Chen et al. 2016): activations of a group of layers are computed again, not kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """`group`, of which only the input is kept while it is trained; dropout draws the same numbers twice.

    Args:
        group: layers.
        kernels: the context that its operators run in, the second time too.
    """

    def __init__(self, group: nn.Module, kernels: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.group, self._kernels = group, kernels

    def forward(self, x: Any) -> Any:  # noqa: ANN401 - what the group takes and gives
        """Return what the group returns."""
        if not torch.is_grad_enabled():
            return self.group(x)
        return checkpoint(self.group, x, use_reentrant=False, context_fn=lambda: (nullcontext(), self._kernels()))
