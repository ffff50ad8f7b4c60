"""Which rows an epoch sees, in which order, cut into which batches: pure functions of a seed."""

import numpy as np
import numpy.typing as npt

from edgeft.core.seeds import derive_seed

Rows = npt.NDArray[np.int64]


def shuffled(rows: Rows, seed: int) -> Rows:
    """Return a permutation of `rows`."""
    return np.random.default_rng(seed).permutation(rows)


def balanced(rows: Rows, labels: Rows, seed: int) -> Rows:
    """Return as many rows as `rows`, every class (nearly) equally often, in random order.

    A small class is gone through whole, again and again; a large one is cut. Over epochs every row is seen.

    Args:
        rows: row numbers, int64 [n].
        labels: their classes, int64 [n].
        seed: of this epoch.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    shares = np.full(len(classes), len(rows) // len(classes))
    shares[: len(rows) % len(classes)] += 1
    drawn = []
    for label, share in zip(classes, shares, strict=True):
        members = rows[labels == label]
        laps = -(-int(share) // len(members))
        drawn.append(np.concatenate([rng.permutation(members) for _ in range(laps)])[:share])
    return rng.permutation(np.concatenate(drawn))


def batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut `rows` into the fewest batches of at most `batch_size`, equal in size plus or minus one.

    No batch is tiny: BatchNorm's statistics over a left-over of one or two images would be noise.
    """
    return np.array_split(rows, -(-len(rows) // batch_size))


def epoch_seed(seed: int, name: str, epoch: int, step: int = 0) -> int:
    """Return the seed of one consumer in one step: a resumed run needs no saved generator state."""
    return derive_seed(seed, f"{name}:{epoch}:{step}")
