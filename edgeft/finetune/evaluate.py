"""Validation after an epoch: the plain loss and the task's metrics, from logits in eval mode."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeft.data.dataset import Dataset
from edgeft.finetune.feeds import Input
from edgeft.finetune.sampling import Rows
from edgeft.verify.accuracy import metric_value

METRICS = ("accuracy", "balanced_accuracy")
"""In every history entry, beside the loss."""
_BATCH = 64


def logits(layers: nn.Module, inputs: Callable[[Rows], Input], data: Dataset, rows: Rows) -> npt.NDArray[np.float32]:
    """Return float32 [n, K] for rows `rows` of `data`; `layers` must be in eval mode."""

    def run(part: Rows) -> Tensor:
        found: Tensor = layers(inputs(part)).float().cpu()
        return found

    with torch.inference_mode():
        return in_batches(data, rows, run).numpy()


def in_batches(data: Dataset, rows: Rows, run: Callable[[Rows], Tensor]) -> Tensor:
    """Return `run` of dataset rows `rows` [n], a batch at a time; of texts alike lengths together, to pad less."""
    order = np.argsort(data.tokens.lengths[rows], kind="stable") if data.is_text else np.arange(len(rows))
    parts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    return torch.cat([run(rows[part]) for part in parts])[torch.from_numpy(np.argsort(order))]


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
            result[name] = metric_value(name, labels, wide - log_norm[:, None], scores.shape[1])
    return result


def goodness(metric: str, values: dict[str, float]) -> float:
    """Return the value of `metric` with larger as better."""
    return -values["loss"] if metric == "loss" else values[metric]
