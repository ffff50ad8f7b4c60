"""Validation after an epoch: the plain loss and the task's metrics, from logits in eval mode."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeft.finetune.feeds import Input
from edgeft.finetune.sampling import Rows
from edgeft.verify.accuracy import metric_value

METRICS = ("accuracy", "balanced_accuracy")
"""In every history entry, beside the loss."""
_BATCH = 64


def logits(layers: nn.Module, inputs: Callable[[Rows], Input], rows: Rows) -> npt.NDArray[np.float32]:
    """Return float32 [n, K] for dataset rows `rows`; `layers` must be in eval mode."""
    with torch.inference_mode():
        parts = [layers(inputs(rows[start : start + _BATCH])).float().cpu() for start in range(0, len(rows), _BATCH)]
    return torch.cat(parts).numpy()


def metrics(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], extra: str) -> dict[str, float]:
    """Return "loss" (mean cross entropy), `METRICS` and `extra` for logits [n, K] and labels [n].

    Raises:
        DataError: a class is missing where the metric needs it.
    """
    wide = scores.astype(np.float64)
    log_norm = np.logaddexp.reduce(wide, axis=1)
    result = {"loss": float(np.mean(log_norm - wide[np.arange(len(labels)), labels]))}
    for name in dict.fromkeys((*METRICS, extra)):
        if name != "loss":
            result[name] = metric_value(name, labels, scores, scores.shape[1])
    return result


def goodness(metric: str, values: dict[str, float]) -> float:
    """Return the value of `metric` with larger as better."""
    return -values["loss"] if metric == "loss" else values[metric]
