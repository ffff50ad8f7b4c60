"""Normalisations at inference."""

from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import Operators, Result, unsupported


def _batch_normalization(
    node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Normalise x [N, C, ...] with the statistics given, each [C]."""
    if node.attributes.get_int("training_mode", 0):
        raise unsupported(node, "training_mode = 1")
    return functional.batch_norm(x, mean, variance, scale, bias, eps=node.attributes.get_float("epsilon", 1e-5))


def _layer_normalization(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Result:
    """Normalise over all axes from `axis` on; `scale` and `bias` broadcast to these axes."""
    first = node.attributes.get_int("axis", -1) % x.dim()
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    normal = functional.layer_norm(x, x.shape[first:], eps=epsilon) * scale
    y = normal if bias is None else normal + bias
    if len(node.outputs) == 1:
        return y
    axes = tuple(range(first, x.dim()))
    variance = x.var(axes, correction=0, keepdim=True)
    return y, x.mean(axes, keepdim=True), torch.rsqrt(variance + epsilon)


def _instance_normalization(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise every channel of every x [N, C, ...] by itself."""
    variance, mean = torch.var_mean(x, tuple(range(2, x.dim())), correction=0, keepdim=True)
    normal = (x - mean) * torch.rsqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    shape = (-1, *(1,) * (x.dim() - 2))
    return normal * scale.reshape(shape) + bias.reshape(shape)


OPERATORS: Final[Operators] = {
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
}
