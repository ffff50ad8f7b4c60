"""A checkpoint's logits in torch: the first hop of the parity check."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.models.checkpoint import CheckpointMeta, load
from edgeft.models.pixels import Normalizer, as_tensor
from edgeft.runtime.preprocess import INPUT, InputContract


class Rows(Protocol):
    """N rows as the graph takes them, read when they are asked for."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, rows: slice, /) -> Mapping[str, npt.NDArray[Any]]:
        """Return arrays [n, ...] by the graph's input."""
        ...


def logits(
    checkpoint: Path, rows: Rows, threads: int, *, batch: int = 64, emit: EventSink = ignore
) -> npt.NDArray[np.float32]:
    """Return float32 [N, K] logits of `checkpoint` in eval mode for N rows.

    Raises:
        DataError: the checkpoint is damaged.
    """
    module, meta = load(checkpoint)
    inputs = _Inputs(meta)
    scores = np.empty((len(rows), len(meta.classes)), np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                scores[start : start + batch] = module(inputs(rows[start : start + batch])).numpy()
                emit(Progress("logits", min(start + batch, len(rows)), len(rows)))
    finally:
        torch.set_num_threads(before)
    return scores


class _Inputs:
    """From what the graph takes to what the module takes."""

    def __init__(self, meta: CheckpointMeta) -> None:
        self._normalize = Normalizer(meta.input) if isinstance(meta.input, InputContract) else None

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensor | dict[str, Tensor]:
        if self._normalize is None:
            return {name: torch.from_numpy(values) for name, values in feeds.items()}
        return self._normalize(as_tensor(feeds[INPUT]))
