"""Calibrated scores: one temperature that minimises the log loss on validation, through the graph that ships.

    scores = softmax(logits / T),    T = argmin mean_i -log scores_i[label_i]

In b = 1 / T the loss is convex, with derivative mean(sum_k p_k z_k - z_label): its root is bisected.
Source: Guo et al. 2017, section 4.2.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeft.quantize.affine import Doubles, Floats, QuantizationError

TEMPERATURE = "temperature"
LOWEST, HIGHEST = 0.05, 20.0
"""Bounds: beyond them the validation set is separable or uninformative, and the optimum is not a finite number."""


def softmax(logits: Floats | Doubles) -> Doubles:
    """Return softmax over the last axis of [N, K], float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exp = np.exp(shifted)
    result: Doubles = exp / exp.sum(axis=-1, keepdims=True)
    return result


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the temperature in [0.05, 20] with the least log loss.

    Args:
        logits: float [N, K].
        labels: int64 [N].

    Raises:
        QuantizationError: no rows, or a logit is NaN or infinite.
    """
    if len(logits) == 0:
        raise QuantizationError("no validation row to fit the temperature on", hint="give data.split a val share")
    if not np.isfinite(logits).all():
        raise QuantizationError("the model's logits hold NaN or Inf on validation images", hint="check the checkpoint")
    z = logits.astype(np.float64)
    own = z[np.arange(len(z)), labels].mean()

    def slope(inverse: float) -> float:
        return float((softmax(z * inverse) * z).sum(axis=1).mean() - own)

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(high) <= 0:
        return LOWEST
    if slope(low) >= 0:
        return HIGHEST
    for _ in range(60):
        middle = np.sqrt(low * high)
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return float(np.float32(1 / np.sqrt(low * high)))


def has_temperature(model: onnx.ModelProto) -> bool:
    """Return whether `model`, a graph of edgeft's export, divides its logits by an initializer `temperature`."""
    return any(tensor.name == TEMPERATURE for tensor in model.graph.initializer)


def with_temperature(model: onnx.ModelProto, temperature: float) -> onnx.ModelProto:
    """Return a copy of `model` whose `temperature` initializer is `temperature`, in the type that it has there.

    Raises:
        QuantizationError: the graph has no such initializer.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == TEMPERATURE:
            value = np.full(tuple(tensor.dims), temperature, numpy_helper.to_array(tensor).dtype)
            tensor.CopyFrom(numpy_helper.from_array(value, TEMPERATURE))
            return copy
    raise QuantizationError(
        f"the graph has no initializer {TEMPERATURE!r}", hint="export it with edgeft, which divides logits by it"
    )
