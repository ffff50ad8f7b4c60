"""From stored pixels to a network's input: one normalisation, into channels_last memory that is used again."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeft.runtime.preprocess import InputContract


class Normalizer:
    """x = (pixel - mean) / std per RGB channel, batch after batch into one buffer.

    A batch is valid until the next call: the buffer is reused, which spares the kernel handing out and taking back
    some 20 MB a step.
    """

    def __init__(self, contract: InputContract, device: torch.device | None = None) -> None:
        self._mean = torch.tensor(contract.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(contract.std, device=device).view(1, 3, 1, 1)
        self._device = device or torch.device("cpu")
        self._buffer: Tensor | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 [N, 3, H, W] in channels_last for uint8 [N, 3, H, W] in any layout."""
        count = len(pixels)
        if self._buffer is None or len(self._buffer) < count or self._buffer.shape[1:] != pixels.shape[1:]:
            with torch.inference_mode(mode=False):  # the first batch may be validation's, the next is training's
                self._buffer = torch.empty(
                    pixels.shape, device=self._device, memory_format=torch.channels_last, dtype=torch.float32
                )
        batch = self._buffer[:count]
        batch.copy_(pixels)
        return batch.sub_(self._mean).div_(self._std)


def as_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return a uint8 [N, 3, H, W] channels_last view of uint8 [N, H, W, 3], without a copy where it is writable."""
    array = pixels if pixels.flags.writeable else pixels.copy()
    return torch.from_numpy(array).permute(0, 3, 1, 2)
