"""Augmenting batches of uint8 images; each sample's randomness is its own (see `edgeft.data.draws`).

augmentation = build(config.augment)
augmentation.at(pixels, sample_seeds(seed, epoch, indices))     # the same for a sample whatever its batch
augmentation(pixels, generator)                                  # seeds drawn from a torch generator
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from edgeft.core.errors import UsageError
from edgeft.data.augment_config import (
    AugmentStep,
    Blur,
    Colour,
    Crop,
    Elastic,
    GaussianNoise,
    HorizontalFlip,
    Rotate90,
    VerticalFlip,
)
from edgeft.data.draws import Draws, Seeds, drawn_seeds
from edgeft.data.transforms import blur_, colour_, crop_, elastic_, flip_, gaussian_noise_, rotate90_

_Transform = Callable[[torch.Tensor, Draws], None]


class Augmentation:
    """A sequence of augmentation steps.

    Args:
        steps: applied in this order.
    """

    def __init__(self, steps: Sequence[AugmentStep]) -> None:
        self.steps = tuple(steps)
        self._transforms = tuple(_transform(step) for step in steps)

    def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment a batch with seeds drawn from `generator`.

        Args:
            pixels: uint8 [N, 3, H, W]; not changed.
            generator: a CPU generator; moves on by N numbers.

        Returns:
            uint8 [N, 3, H, W], in the memory format of `pixels`.

        Raises:
            UsageError: `pixels` has another type or shape.
        """
        return self.at(pixels, drawn_seeds(len(pixels), generator))

    def at(self, pixels: torch.Tensor, seeds: Seeds) -> torch.Tensor:
        """Augment a batch with one seed for each sample.

        Args:
            pixels: uint8 [N, 3, H, W]; not changed.
            seeds: uint64 [N].

        Returns:
            uint8 [N, 3, H, W], in the memory format of `pixels`.

        Raises:
            UsageError: `pixels` has another type or shape, or there are more or fewer seeds.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or len(seeds) != len(pixels):  # noqa: PLR2004 - [N, 3, H, W]
            raise UsageError(
                f"augmentation got {pixels.dtype} {tuple(pixels.shape)} with {len(seeds)} seeds, "
                "expected uint8 [N, 3, H, W] with N seeds"
            )
        result = pixels.clone(memory_format=torch.preserve_format)
        for number, transform in enumerate(self._transforms):
            transform(result, Draws(seeds, number))
        return result


def build(spec: Sequence[AugmentStep]) -> Augmentation:
    """Return the augmentation that the parsed `augment:` value describes."""
    return Augmentation(spec)


def _transform(step: AugmentStep) -> _Transform:
    transform: _Transform
    match step:
        case HorizontalFlip():
            transform = partial(flip_, dim=2, p=step.p)
        case VerticalFlip():
            transform = partial(flip_, dim=1, p=step.p)
        case Rotate90():
            transform = partial(rotate90_, p=step.p)
        case Crop():
            transform = partial(crop_, scale=step.scale, ratio=step.ratio, p=step.p)
        case Blur():
            transform = partial(blur_, kernel_size=step.kernel_size, sigma=step.sigma, p=step.p)
        case GaussianNoise():
            transform = partial(gaussian_noise_, sigma=step.sigma, p=step.p)
        case Elastic():
            transform = partial(elastic_, alpha=step.alpha, sigma=step.sigma, p=step.p)
        case Colour():
            transform = partial(
                colour_,
                brightness=step.brightness,
                contrast=step.contrast,
                saturation=step.saturation,
                hue=step.hue,
                p=step.p,
            )
    return transform
