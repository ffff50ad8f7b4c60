"""A checkpoint's logits in torch: the first hop of the parity check."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.data.rows import Rows
from edgeft.models.checkpoint import CheckpointMeta, load
from edgeft.models.pixels import Normalizer, as_tensor
from edgeft.runtime.preprocess import INPUT, InputContract


def logits(
    checkpoint: Path, rows: Rows, threads: int, *, batch: int = 64, emit: EventSink = ignore
) -> npt.NDArray[np.float32]:
    """Return float32 [N, K] logits of `checkpoint` in eval mode for N rows.

    Raises:
        DataError: the checkpoint is damaged.
    """
    module, meta = load(checkpoint)
    inputs = as_module_takes(meta)
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


def as_module_takes(meta: CheckpointMeta) -> Callable[[Mapping[str, npt.NDArray[Any]]], Tensor | dict[str, Tensor]]:
    """Return what turns the graph's inputs into the module's: normalised pixels, or tokens."""
    normalize = Normalizer(meta.input) if isinstance(meta.input, InputContract) else None

    def turned(feeds: Mapping[str, npt.NDArray[Any]]) -> Tensor | dict[str, Tensor]:
        if normalize is None:
            return {name: torch.from_numpy(values) for name, values in feeds.items()}
        return normalize(as_tensor(feeds[INPUT]))

    return turned
