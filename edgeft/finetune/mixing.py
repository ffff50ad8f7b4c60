"""Mixup and cutmix: each image of a batch is mixed with its left neighbour, and the loss is mixed alike.

mixup    x <- l x + (1 - l) x',                              l ~ Beta(a, a)     (Zhang et al. 2018)
cutmix   a box of x' in x; l is the share of x that is left                     (Yun et al. 2019)
    loss     l L(f(x), y) + (1 - l) L(f(x), y')

x' and y' are the neighbour's image and label.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mixed:
    """A mixed batch.

    Args:
        inputs: float [n, C, H, W].
        partners: labels int64 [n] of the neighbours.
        share: l, of the images' own labels.
    """

    inputs: Tensor
    partners: Tensor
    share: float


def mix(inputs: Tensor, labels: Tensor, mixup: float, cutmix: float, seed: int) -> Mixed:
    """Return a batch mixed by one of the two; where both are wanted, each for half of the batches.

    Args:
        inputs: float [n, C, H, W], normalised images.
        labels: int64 [n].
        mixup: a of mixup; 0 leaves it out.
        cutmix: a of cutmix; 0 leaves it out, where `mixup` is not 0.
        seed: of this batch.
    """
    rng = np.random.default_rng(seed)
    partners = labels.roll(1, 0)
    if mixup and (not cutmix or rng.random() < 0.5):  # noqa: PLR2004 - a fair coin
        share = float(rng.beta(mixup, mixup))
        return Mixed(inputs.roll(1, 0).lerp(inputs, share), partners, share)
    height, width = inputs.shape[-2:]
    side = math.sqrt(1 - rng.beta(cutmix, cutmix))
    rows, columns = _span(height, side, rng), _span(width, side, rng)
    mixed = inputs.clone()
    mixed[..., rows, columns] = inputs.roll(1, 0)[..., rows, columns]
    cut = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mixed(mixed, partners, 1 - cut / (height * width))


def _span(size: int, share: float, rng: np.random.Generator) -> slice:
    """Return a span of `share` of `size` around a random place, cut off at the ends."""
    middle, half = int(rng.integers(size)), int(share * size / 2)
    return slice(max(0, middle - half), min(size, middle + half))
