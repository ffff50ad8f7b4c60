"""What a training step is fed with: pixels, or the stored output of layers that are frozen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeft.finetune.cache import MAPS, ActivationCache
from edgeft.finetune.engines import Engine
from edgeft.finetune.sampling import Rows, alike, epoch_seed
from edgeft.models.pixels import Normalizer, as_tensor
from edgeft.runtime.text import TokenTable

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(uint8 [N, 3, H, W], generator) -> uint8 [N, 3, H, W]."""


Tokens: TypeAlias = Mapping[str, Tensor]
"""int64 [n, L] by the graph's input."""
Input: TypeAlias = Tensor | Tokens | tuple[Tensor, ...]
"""What the lowest trained layer takes: activations, pixels, tokens, or hidden states with their masks."""


class Feed(Protocol):
    """The input of the trained layers, batch after batch; a batch is valid until the next call."""

    def prepare(self, epoch: int) -> None:
        """Compute what `epoch` and its validation need, once."""
        ...

    def parts(self, rows: Rows) -> Sequence[Rows]:
        """Return the rows of a batch, int64 [n], as they are computed: together, or cut; their gradients add up."""
        return [rows]

    def train(self, rows: Rows, epoch: int, step: int) -> Input:
        """Return the training input for dataset rows `rows` [n]; augmented."""
        ...

    def evaluate(self, rows: Rows) -> Input:
        """Return the input for dataset rows `rows` [n]; never augmented."""
        ...


class PixelFeed(Feed):
    """Images from the dataset, augmented anew in every epoch, normalised into one channels_last buffer."""

    def __init__(
        self, pixels: npt.NDArray[np.uint8], normalize: Normalizer, augment: Augment | None, seed: int
    ) -> None:
        self._pixels = pixels
        self._normalize = normalize
        self._augment = augment
        self._seed = seed

    def prepare(self, epoch: int) -> None:
        """Do nothing: pixels are ready."""

    def train(self, rows: Rows, epoch: int, step: int) -> Tensor:
        """Return float32 [n, 3, H, W]."""
        return self._normalize(self.augmented(rows, epoch, step))

    def evaluate(self, rows: Rows) -> Tensor:
        """Return float32 [n, 3, H, W]."""
        return self._normalize(self.plain(rows))

    def augmented(self, rows: Rows, epoch: int, step: int) -> Tensor:
        """Return uint8 [n, 3, H, W]; other augmentations in each epoch and step."""
        images = self.plain(rows)
        if self._augment is None:
            return images
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, "augment", epoch, step))
        return self._augment(images, generator)

    def plain(self, rows: Rows) -> Tensor:
        """Return uint8 [n, 3, H, W], the images themselves."""
        return as_tensor(self._pixels[rows])


Rewrite = Callable[[Rows, int], Mapping[str, npt.NDArray[np.int64]]]
"""(dataset rows [n], epoch) -> tokens int64 [n, L] by input, of texts that were augmented for this epoch."""


class TokenFeed(Feed):
    """Texts from the dataset; a batch is computed in parts of alike lengths, so that little of it is padding."""

    def __init__(self, tokens: TokenTable, device: torch.device, rewrite: Rewrite | None = None) -> None:
        self._tokens = tokens
        self._device = device
        self._rewrite = rewrite

    def prepare(self, epoch: int) -> None:
        """Do nothing: tokens are ready."""

    def parts(self, rows: Rows) -> list[Rows]:
        """Return `rows` by length; a GPU takes them whole, since it waits for small ones."""
        return alike(rows, self._tokens.lengths[rows]) if self._device.type == "cpu" else [rows]

    def train(self, rows: Rows, epoch: int, step: int) -> Tokens:
        """Return int64 [n, L] by input; other augmentations in each epoch."""
        del step
        return self._on_device(self._tokens.feeds(rows) if self._rewrite is None else self._rewrite(rows, epoch))

    def evaluate(self, rows: Rows) -> Tokens:
        """Return int64 [n, L] by input."""
        return self._on_device(self._tokens.feeds(rows))

    def _on_device(self, feeds: Mapping[str, npt.NDArray[np.int64]]) -> Tokens:
        return {name: torch.from_numpy(values).to(self._device) for name, values in feeds.items()}


class FrozenTokenFeed(Feed):
    """Frozen layers run anew for every batch of texts."""

    def __init__(self, tokens: TokenFeed, layers: nn.Module) -> None:
        self._tokens = tokens
        self._layers = layers

    def prepare(self, epoch: int) -> None:
        """Do nothing: every batch is computed when it is asked for."""

    def parts(self, rows: Rows) -> list[Rows]:
        """Return `rows` by length."""
        return self._tokens.parts(rows)

    def train(self, rows: Rows, epoch: int, step: int) -> Input:
        """Return the output of the frozen layers."""
        return self._run(self._tokens.train(rows, epoch, step))

    def evaluate(self, rows: Rows) -> Input:
        """Return the output of the frozen layers."""
        return self._run(self._tokens.evaluate(rows))

    def _run(self, tokens: Tokens) -> Input:
        with torch.no_grad():
            found: Input = self._layers.eval()(tokens)
            return found


class PrefixFeed(Feed):
    """Frozen layers run anew for every batch, for activations that are too big to keep."""

    def __init__(self, pixels: PixelFeed, engine: Engine, device: torch.device) -> None:
        self._pixels = pixels
        self._engine = engine
        self._device = device

    def prepare(self, epoch: int) -> None:
        """Do nothing: every batch is computed when it is asked for."""

    def train(self, rows: Rows, epoch: int, step: int) -> Tensor:
        """Return float32 [n, ...], the output of the frozen layers for freshly augmented images."""
        return self._run(self._pixels.augmented(rows, epoch, step))

    def evaluate(self, rows: Rows) -> Tensor:
        """Return float32 [n, ...], the output of the frozen layers for the image itself."""
        return self._run(self._pixels.plain(rows))

    def _run(self, images: Tensor) -> Tensor:
        output = self._engine(images).to(self._device)
        layout = torch.channels_last if output.ndim == MAPS else torch.contiguous_format
        return output.contiguous(memory_format=layout)


class CachedFeed(Feed):
    """Stored activations: epoch e is fed view e mod `views`, computed when it is first asked for."""

    def __init__(self, cache: ActivationCache, views: int, device: torch.device) -> None:
        self._cache = cache
        self._views = views
        self._device = device

    def prepare(self, epoch: int) -> None:
        """Compute the epoch's view and the validation split, unless they are stored."""
        self._cache.prepare("train", epoch % self._views)
        self._cache.prepare("val", 0)

    def train(self, rows: Rows, epoch: int, step: int) -> Tensor:
        """Return float32 [n, ...], the output of the frozen layers."""
        del step
        return self._cache.rows("train", epoch % self._views, rows).to(self._device)

    def evaluate(self, rows: Rows) -> Tensor:
        """Return float32 [n, ...], the output of the frozen layers for the image itself."""
        return self._cache.rows("val", 0, rows).to(self._device)
