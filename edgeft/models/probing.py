"""Running a module once to learn something of it, and leaving it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Put `module` in eval mode without gradients, and back into its mode at the end."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)
