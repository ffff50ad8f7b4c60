"""Activation functions."""

from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import Operators


def _relu(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return torch.relu(x)


def _leaky_relu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.attributes.get_float("alpha", 0.01))


def _prelu(node: ir.Node, x: Tensor, slope: Tensor) -> Tensor:
    """Multiply negative values by `slope`, which broadcasts to x."""
    del node
    return torch.where(x < 0, x * slope, x)


def _elu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.attributes.get_float("alpha", 1.0))


def _celu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.celu(x, node.attributes.get_float("alpha", 1.0))


def _selu(node: ir.Node, x: Tensor) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get_float("gamma", 1.05070102214813232421875)
    return gamma * functional.elu(x, alpha)


def _sigmoid(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return torch.sigmoid(x)


def _hard_sigmoid(node: ir.Node, x: Tensor) -> Tensor:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return torch.clamp(alpha * x + beta, 0, 1)


def _hard_swish(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return functional.hardswish(x)


def _swish(node: ir.Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attributes.get_float("alpha", 1.0) * x)


def _mish(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return functional.mish(x)


def _softplus(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return functional.softplus(x)


def _tanh(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return torch.tanh(x)


def _gelu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.attributes.get_string("approximate", "none"))


def _softmax(node: ir.Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.attributes.get_int("axis", -1))


def _log_softmax(node: ir.Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, node.attributes.get_int("axis", -1))


OPERATORS: Final[Operators] = {
    "Celu": _celu,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "Mish": _mish,
    "PRelu": _prelu,
    "Relu": _relu,
    "Selu": _selu,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Softplus": _softplus,
    "Swish": _swish,
    "Tanh": _tanh,
}
