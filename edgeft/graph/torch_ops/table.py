"""Every operator of the executor, by name. `docs/quantization.md` counts the ONNX tests they pass."""

from typing import Final

import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.torch_ops import (
    activations,
    elementwise,
    indexing,
    layout,
    normalization,
    pooling,
    products,
    quantize,
    reduction,
)
from edgeft.graph.torch_ops.operator import Operator, Operators, UnsupportedNodeError, title

OPERATORS: Final[Operators] = {
    **activations.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **layout.OPERATORS,
    **normalization.OPERATORS,
    **pooling.OPERATORS,
    **products.OPERATORS,
    **quantize.OPERATORS,
    **reduction.OPERATORS,
}


def operator_of(node: ir.Node) -> Operator:
    """Return the function of `node`.

    Raises:
        UnsupportedNodeError: there is none; names the node and what is supported.
    """
    found = OPERATORS.get(node.op_type) if node.domain in DEFAULT_DOMAINS else None
    if found is None:
        raise UnsupportedNodeError(
            f"{title(node)}: the torch executor has no such operator; it has {', '.join(sorted(OPERATORS))}",
            hint="leave quantization-aware training out for this graph: compress.method: auto",
        )
    return found
