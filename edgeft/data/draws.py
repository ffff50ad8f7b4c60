"""Random numbers that belong to a sample, not to its place in a batch.

Each sample has one 64-bit seed. Draw k of the consumer c is a hash of (seed, c, k):

    u = (mix(mix(seed + (c + 1) golden) + (k + 1) golden) >> 11) / 2^53

with mix the finaliser of splitmix64 (Steele, Lea, Flood 2014),
so a sample is augmented alike whatever stands beside it and in whatever order batches come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Seeds = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def sample_seeds(seed: int, epoch: int, indices: Sequence[int] | npt.NDArray[np.int64]) -> Seeds:
    """Return one seed for each dataset index in this epoch, uint64 [N].

    Args:
        seed: of the consumer, from `ctx.seed_for`.
        epoch: epoch or view number; each gives other augmentations.
        indices: dataset rows.
    """
    at = np.asarray(indices, dtype=np.int64).astype(np.uint64)
    return _mix(_mix(_mix(_step(seed)) + _step(epoch)) + at * _GOLDEN)


def drawn_seeds(n: int, generator: torch.Generator) -> Seeds:
    """Return seeds for the `n` samples of a batch from `generator`, uint64 [N]."""
    return torch.randint(2**62, (n,), generator=generator, dtype=torch.int64).numpy().astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one augmentation step for N samples.

    Args:
        seeds: uint64 [N].
        consumer: number of the step, so that steps do not share numbers.
    """

    seeds: Seeds
    consumer: int

    def __len__(self) -> int:
        return len(self.seeds)

    def uniform(self, k: int, low: float = 0.0, high: float = 1.0) -> npt.NDArray[np.float64]:
        """Return draw number `k` of each sample, float64 [N] in [low, high)."""
        return low + (high - low) * (self._bits(k) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def chosen(self, k: int, p: float) -> list[int]:
        """Return the positions of the samples that something with probability `p` happens to."""
        return np.flatnonzero(self.uniform(k) < p).tolist()

    def generator(self, k: int, position: int) -> torch.Generator:
        """Return a generator for the sample at `position`, for draws of many numbers."""
        return torch.Generator().manual_seed(int(self._bits(k)[position] >> np.uint64(1)))

    def _bits(self, k: int) -> Seeds:
        return _mix(_mix(self.seeds + _step(self.consumer + 1)) + _step(k + 1))


def _step(k: int) -> Seeds:
    """Return k * golden modulo 2^64, as an array of one: arrays wrap around, scalars warn."""
    return np.array([k * int(_GOLDEN) % 2**64], dtype=np.uint64)


def _mix(bits: Seeds) -> Seeds:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
