"""What an operator function is, and how one says that it cannot do what its node asks."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx_ir as ir
from torch import Tensor

from edgeft.core.errors import EdgeftError

Result: TypeAlias = Tensor | tuple[Tensor, ...]
Operator: TypeAlias = Callable[..., Result]
"""`operator(node, *inputs) -> output or outputs`; inputs are `Tensor | None`, in the order of the definition."""
Operators: TypeAlias = Mapping[str, Operator]


class UnsupportedNodeError(EdgeftError):
    """A node asks for something that the torch executor does not do."""


def title(node: ir.Node) -> str:
    """Return how a message names `node`: its name, or its first output's, and its operator."""
    name = node.name or next((value.name for value in node.outputs if value.name), "without a name")
    return f"node {name!r} ({node.domain + '.' if node.domain else ''}{node.op_type})"


def unsupported(node: ir.Node, what: str) -> UnsupportedNodeError:
    """Return the error that says that `node` asks for `what`, which its operator function does not do."""
    return UnsupportedNodeError(
        f"{title(node)}: {what} is not supported by the torch executor",
        hint="leave quantization-aware training out for this graph: compress.method: auto",
    )


def axes(node: ir.Node, given: Tensor | None) -> tuple[int, ...]:
    """Return the axes from an input (newer opsets) or from the attribute `axes` (older ones); empty where absent."""
    if given is not None:
        return tuple(int(axis) for axis in given.tolist())
    return tuple(node.attributes.get_ints("axes", ()))
