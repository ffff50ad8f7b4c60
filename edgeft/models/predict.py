"""A checkpoint's logits in torch: the first hop of the parity check."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.models.checkpoint import load
from edgeft.models.pixels import Normalizer, as_tensor


def logits(
    checkpoint: Path,
    pixels: npt.NDArray[np.uint8],
    threads: int,
    *,
    batch: int = 64,
    emit: EventSink = ignore,
) -> npt.NDArray[np.float32]:
    """Return float32 [N, K] logits of `checkpoint` in eval mode for uint8 `pixels` [N, H, W, 3].

    Raises:
        DataError: the checkpoint is damaged.
    """
    module, meta = load(checkpoint)
    normalize = Normalizer(meta.input)
    scores = np.empty((len(pixels), len(meta.classes)), np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                chunk = np.ascontiguousarray(pixels[start : start + batch])
                scores[start : start + batch] = module(normalize(as_tensor(chunk))).numpy()
                emit(Progress("logits", min(start + batch, len(pixels)), len(pixels)))
    finally:
        torch.set_num_threads(before)
    return scores
