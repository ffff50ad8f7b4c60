"""What one of several training processes does: its rows of every batch, and sums over all of them.

Each process computes the gradient of its rows, weighted by their share of the step; the sum over processes is the
gradient of the whole step, whatever their number. One all-reduce a step carries gradients and loss together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from edgeft.core.errors import UsageError
from edgeft.finetune.sampling import Rows


@dataclass(frozen=True, slots=True)
class Sharing:
    """The part that this process has in the work."""

    accelerate: Accelerator

    @property
    def processes(self) -> int:
        """How many train together."""
        return int(self.accelerate.num_processes)

    @property
    def _index(self) -> int:
        return int(self.accelerate.process_index)

    @property
    def writes(self) -> bool:
        """Whether this process keeps what all have found."""
        return bool(self.accelerate.is_main_process)

    def require(self, batches: Sequence[Rows]) -> None:
        """Refuse batches with fewer rows than processes.

        Raises:
            UsageError: there is one.
        """
        smallest = min(len(batch) for batch in batches)
        if smallest < self.processes:
            raise UsageError(
                f"finetune.processes: {self.processes} cannot share a batch of {smallest}",
                hint="raise finetune.batch_size, or lower finetune.processes",
            )

    def rows(self, rows: Rows) -> Rows:
        """Return this process's part of `rows` [n], in order."""
        return np.array_split(rows, self.processes)[self._index]

    def number(self, batch: int) -> int:
        """Return the number of this process's part of batch number `batch`: what it draws depends on it."""
        return batch * self.processes + self._index

    def sum_(self, parameters: Sequence[nn.Parameter], loss: float) -> float:
        """Sum the gradients of `parameters` over the processes, in place, and return the sum of `loss`."""
        if self.processes == 1:
            return loss
        device = self.accelerate.device
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        parts = [torch.tensor([loss], device=device), *(gradient.float().reshape(-1) for gradient in gradients)]
        total: Tensor = self.accelerate.reduce(torch.cat(parts), reduction="sum")
        pieces = torch.split(total[1:], [gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))  # in its memory layout: fused optimizers need it
        return float(total[0])

    def together(self, part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the parts [n_i, K] of all processes one below the other, as `rows` cut them."""
        if self.processes == 1:
            return part
        return np.concatenate(gather_object([part]))

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerate.wait_for_everyone()
