"""Which rows an epoch sees, in which order, cut into which batches: pure functions of a seed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeft.core.seeds import derive_seed

Rows = npt.NDArray[np.int64]
_ROUNDING = 1e-9
_PART_TOKENS = 128
"""A part more costs as much time as these (MiniLM-L6, two cores: 26 ms, .2 ms a token); larger encoders, less."""


def shuffled(rows: Rows, seed: int) -> Rows:
    """Return a permutation of `rows`."""
    return np.random.default_rng(seed).permutation(rows)


def balanced(rows: Rows, labels: Rows, seed: int) -> Rows:
    """Return as many rows as `rows`, every class (nearly) equally often, in random order.

    Args:
        rows: row numbers, int64 [n].
        labels: their classes, int64 [n].
        seed: of this epoch.
    """
    classes = np.unique(labels)
    return mixed(rows, np.searchsorted(classes, labels), [1 / len(classes)] * len(classes), seed)


def mixed(rows: Rows, kinds: Rows, shares: Sequence[float], seed: int) -> Rows:
    """Return as many rows as `rows`, of each kind its share (to one row), in random order.

    A small kind is gone through whole, again and again; a large one is cut. Over epochs every row is seen.

    Args:
        rows: row numbers, int64 [n].
        kinds: 0..len(shares) - 1, int64 [n]; each has a row.
        shares: of each kind; they add up to 1.
        seed: of this epoch.
    """
    rng = np.random.default_rng(seed)
    exact = np.asarray(shares) * len(rows)
    counts = np.floor(exact + _ROUNDING).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")[: len(rows) - int(counts.sum())]
    counts[rest] += 1
    drawn = []
    for kind, count in enumerate(counts):
        members = rows[kinds == kind]
        laps = -(-int(count) // len(members))
        drawn.append(np.concatenate([members[:0], *(rng.permutation(members) for _ in range(laps))])[:count])
    return rng.permutation(np.concatenate(drawn))


def batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut `rows` into the fewest batches of at most `batch_size`, equal in size plus or minus one.

    No batch is tiny: BatchNorm's statistics over a left-over of one or two images would be noise.
    """
    return np.array_split(rows, -(-len(rows) // batch_size))


def alike(rows: Rows, lengths: Rows) -> list[Rows]:
    """Cut `rows` into parts of alike lengths: those that take the least time together, each padded to its longest.

    Args:
        rows: row numbers, int64 [n].
        lengths: tokens of each, int64 [n].
    """
    order = np.argsort(lengths, kind="stable")
    longest = lengths[order]
    best, cut = np.zeros(len(rows) + 1), np.zeros(len(rows) + 1, np.int64)
    for end in range(1, len(rows) + 1):  # the last part of the first `end` rows begins at one of these
        costs = best[:end] + longest[end - 1] * np.arange(end, 0, -1) + _PART_TOKENS
        cut[end] = np.argmin(costs)
        best[end] = costs[cut[end]]
    parts, end = [], len(rows)
    while end:
        parts.append(rows[order[cut[end] : end]])
        end = int(cut[end])
    return parts


def epoch_seed(seed: int, name: str, epoch: int, step: int = 0) -> int:
    """Return the seed of one consumer in one step: a resumed run needs no saved generator state."""
    return derive_seed(seed, f"{name}:{epoch}:{step}")
