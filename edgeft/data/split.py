"""Dividing images into parts so that a group stays whole and every class has its share in every part.

Whole groups are dealt out largest first, each to the part where it lowers

    sum over parts p and columns k of (count[p, k] - target[p, k])^2 / target[p, k]

most; the columns are the classes and the total. Then single groups move and pairs of groups change places as long as
that lowers the sum. Where every group is one image, each class is cut by largest remainders: exact to one image.
Equal inputs and seed give equal parts; the order of the rows is part of the input.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_ROUNDS = 20
_MAX_PAIR_GROUPS = 2000


def divide(labels: Ints, groups: Sequence[str], shares: Sequence[float], seed: int) -> Ints:
    """Divide N images into parts.

    Args:
        labels: int64 [N], class of each image, 0..K-1.
        groups: group of each image, length N.
        shares: share of each part, summing to 1.
        seed: picks one of the equally good divisions.

    Returns:
        int64 [N], part of each image.
    """
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    member = member.astype(np.int64)
    rng = np.random.default_rng(seed)
    if len(names) == len(labels):
        return _divide_images(labels, np.asarray(shares, dtype=np.float64), rng)
    counts = np.zeros((len(names), int(labels.max()) + 2))
    np.add.at(counts, (member, labels), 1)
    counts[:, -1] = counts.sum(axis=1)
    target = np.outer(shares, counts.sum(axis=0))
    part = _deal(counts, target, rng)
    for _ in range(_ROUNDS):
        if not (_move_one(part, counts, target) or _exchange_pair(part, counts, target)):
            break
    return part[member]


def _divide_images(labels: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    part = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        images = rng.permutation(np.flatnonzero(labels == label))
        sizes = _largest_remainders(len(images), shares)
        part[images] = np.repeat(np.arange(len(shares)), sizes)
    return part


def _largest_remainders(n: int, shares: Floats) -> Ints:
    """Cut n into whole numbers near n * shares; none is 0 where n is at least the number of parts."""
    exact = n * shares
    sizes = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - sizes), kind="stable")
    sizes[order[: n - int(sizes.sum())]] += 1
    while n >= len(shares) and sizes.min() == 0:
        sizes[int(sizes.argmax())] -= 1
        sizes[int(sizes.argmin())] += 1
    return sizes


def _loss(held: Floats, target: Floats) -> Floats:
    """Return the loss of each part: `held` and `target` end in [K+1]; a class that a part lacks weighs extra."""
    empty = (held == 0) & (target > 0)
    terms = np.square(held - target) / np.maximum(target, 1e-9) + 1e3 * empty
    return np.asarray(terms.sum(axis=-1))


def _deal(counts: Floats, target: Floats, rng: np.random.Generator) -> Ints:
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    part = np.empty(len(counts), dtype=np.int64)
    held = np.zeros_like(target)
    loss = _loss(held, target)
    for group in order:
        after = _loss(held + counts[group], target)
        part[group] = chosen = int(np.argmin(after - loss))
        held[chosen] += counts[group]
        loss[chosen] = after[chosen]
    return part


def _held(part: Ints, counts: Floats, parts: int) -> Floats:
    held = np.zeros((parts, counts.shape[1]))
    np.add.at(held, part, counts)
    return held


def _move_one(part: Ints, counts: Floats, target: Floats) -> bool:
    """Move each group, in order, to where the loss falls most; say whether any moved. Changes `part`."""
    held = _held(part, counts, len(target))
    moved = False
    for group, count in enumerate(counts):
        old = int(part[group])
        before = _loss(held, target)
        left = _loss(held[old] - count, target[old]) - before[old]
        change = left + _loss(held + count, target) - before
        change[old] = 0.0
        new = int(np.argmin(change))
        if change[new] < -1e-9:  # noqa: PLR2004 - above rounding
            held[old] -= count
            held[new] += count
            part[group] = new
            moved = True
    return moved


def _exchange_pair(part: Ints, counts: Floats, target: Floats) -> bool:
    """Let the best pair of groups of each two parts change places; say whether any did. Changes `part`."""
    if len(part) > _MAX_PAIR_GROUPS:
        return False
    changed = False
    for first in range(len(target)):
        for second in range(first + 1, len(target)):
            changed |= _exchange_between(first, second, part, counts, target)
    return changed


def _exchange_between(first: int, second: int, part: Ints, counts: Floats, target: Floats) -> bool:
    held = _held(part, counts, len(target))
    before = _loss(held, target)
    ours, theirs = np.flatnonzero(part == first), np.flatnonzero(part == second)
    best, pair = -1e-9, None
    for group in ours:
        shift = counts[theirs] - counts[group]
        change = _loss(held[first] + shift, target[first]) + _loss(held[second] - shift, target[second])
        change -= before[first] + before[second]
        if len(change) and change.min() < best:
            best, pair = float(change.min()), (int(group), int(theirs[change.argmin()]))
    if pair is None:
        return False
    part[pair[0]], part[pair[1]] = second, first
    return True
