"""Losses as small functions of logits and labels, each averaged over the batch.

    smoothed target   q = (1 - s) * onehot + s / K                     (Szegedy et al. 2016, section 7)
    cross entropy     L = -sum_k q_k log p_k
    focal             L = -sum_k q_k (1 - p_k)^gamma log p_k           (eq. 4, Lin et al. 2017, with soft targets)
    class weights     weighted mean over the batch: sum_i w[y_i] L_i / sum_i w[y_i]

K classes, s the smoothing, q the target, p the softmax of the logits, w the class weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.core.errors import UsageError

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(logits float32 [N, K], labels int64 [N]) -> scalar loss."""


def cross_entropy(smoothing: float = 0.0, weights: Tensor | None = None) -> Objective:
    """Return cross entropy with label smoothing and optional class weights [K]."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        target = smoothed(labels, logits.shape[1], smoothing)
        each = -(target * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)
        return _mean(each, labels, weights)

    return loss


def focal(gamma: float, smoothing: float = 0.0, weights: Tensor | None = None) -> Objective:
    """Return the focal loss with focusing power `gamma`, label smoothing and optional class weights [K]."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = functional.log_softmax(logits.float(), dim=1)
        target = smoothed(labels, logits.shape[1], smoothing)
        modulation = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma
        return _mean(-(target * modulation * log_p).sum(dim=1), labels, weights)

    return loss


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return soft targets float32 [N, K] for labels int64 [N]."""
    onehot = functional.one_hot(labels, classes).float()
    return onehot * (1.0 - smoothing) + smoothing / classes


def class_weights(
    choice: str | Mapping[str, float], labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> Tensor | None:
    """Return float32 weights [K], or None for "none".

    "balanced" gives N / (K * n_k), as scikit-learn's `compute_class_weight`; a mapping gives its own values.

    Raises:
        UsageError: the mapping names an unknown class or leaves one out.
    """
    if choice == "none":
        return None
    if isinstance(choice, Mapping):
        if set(choice) != set(classes):
            raise UsageError(
                f"finetune.class_weights names {sorted(choice)}, the classes are {sorted(classes)}",
                hint="give every class exactly one weight",
            )
        return torch.tensor([choice[name] for name in classes], dtype=torch.float32)
    counts = np.bincount(labels, minlength=len(classes))
    return torch.from_numpy(len(labels) / (len(classes) * counts)).float()


def _mean(each: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return each.mean()
    per_row = weights.to(each.device)[labels]
    return (each * per_row).sum() / per_row.sum()
