"""The frozen layers' output for a dataset: which engine computes it, from which views, and where it is kept."""

from functools import cache

import torch
from torch import Tensor

from edgeft.data.dataset import Split
from edgeft.finetune import engines, evaluate
from edgeft.finetune.cache import CHUNK, ActivationCache, Compute
from edgeft.finetune.config import CachedConfig
from edgeft.finetune.feeds import CachedFeed, TokenFeed
from edgeft.finetune.sampling import Rows, epoch_seed
from edgeft.finetune.session import Session
from edgeft.models.pixels import as_tensor
from edgeft.models.stages import chain

_SPLITS: tuple[Split, ...] = ("train", "val")
TEXTS = 8 * CHUNK
"""Texts at once, sorted by length before they are cut into batches."""


class PixelViews:
    """Views of the images: view 0 is the image itself, the others are augmented, always in the same way."""

    def __init__(self, opened: Session) -> None:
        self._pixels = opened.data.pixels
        self._augment = opened.augment()
        self._seed = opened.ctx.seed_for("views")

    def __call__(self, view: int, rows: Rows) -> Tensor:
        """Return uint8 [n, 3, H, W]; the augmentation depends on `view` and the first row only."""
        images = as_tensor(self._pixels[rows])
        if view == 0 or self._augment is None:
            return images
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, "view", view, int(rows[0])))
        return self._augment(images, generator)


def frozen_engine(opened: Session, config: CachedConfig, boundary: int, images: int) -> tuple[engines.Engine, str]:
    """Return what runs the groups below `boundary`, and its name; it is built at its first call.

    Args:
        opened: the model and its data.
        config: which engine.
        boundary: index of the lowest trained group.
        images: how many forward passes are expected.
    """
    ctx, device, contract = opened.ctx, opened.accelerate.device, opened.data.input
    layers = chain(opened.groups[:boundary])
    name = engines.choose(config.engine, images * engines.multiply_adds(layers, contract, device), device)

    @cache
    def built() -> engines.Engine:  # only when needed: a resumed run may find every activation on disk
        if name == "onnxruntime":
            return engines.onnxruntime_engine(layers, contract, ctx.threads, ctx.workspace / f"engine_{boundary}")
        return engines.torch_engine(layers, contract, device)

    def engine(pixels: Tensor) -> Tensor:
        return built()(pixels)

    return engine, name


def base_cache(opened: Session, config: CachedConfig, boundary: int, images: int) -> tuple[ActivationCache, str]:
    """Return the cache of the output of the groups below `boundary`, and the name of what computes it.

    Of texts only the head's input has one size, so only it can be kept.
    """
    if opened.data.is_text:
        return _text_cache(opened, boundary), "torch"
    engine, name = frozen_engine(opened, config, boundary, images)
    views = PixelViews(opened)

    def compute(split: str, view: int, rows: Rows) -> Tensor:
        return engine(views(view if split == "train" else 0, rows))

    return activation_cache(opened, str(boundary), compute), name


def _text_cache(opened: Session, boundary: int) -> ActivationCache:
    tokens = TokenFeed(opened.data.tokens, opened.accelerate.device)
    layers = chain(opened.groups[:boundary]).eval()

    def compute(split: str, view: int, rows: Rows) -> Tensor:
        del split, view  # texts are not augmented
        with torch.no_grad():
            return evaluate.in_batches(opened.data, rows, lambda part: layers(tokens.evaluate(part)))

    return activation_cache(opened, str(boundary), compute, TEXTS)


def activation_cache(opened: Session, name: str, compute: Compute, chunk: int = CHUNK) -> ActivationCache:
    """Return the cache `name` of the train and val rows, kept in the stage's workspace."""
    splits: dict[str, Rows] = {split: opened.data.indices(split) for split in _SPLITS}
    return ActivationCache(opened.ctx.workspace / f"features_{name}", splits, compute, opened.ctx.emit, chunk)


def feed(source: ActivationCache, opened: Session, config: CachedConfig) -> CachedFeed:
    """Return a feed from `cache`; without augmentation all views are the same, so one is kept."""
    return CachedFeed(source, config.views if config.augment else 1, opened.accelerate.device)
