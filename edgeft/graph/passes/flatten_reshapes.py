"""Rewrite a reshape to two axes as a flatten.

    Reshape(x [N, d1, ..., dn], [-1, d1 * ... * dn])  =  Flatten(x, axis = 1)        for static d1 ... dn

Flatten needs no shape tensor, keeps the batch axis by construction and is passed through by quantized runtimes.
"""

import math

import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.passes.report import PassReport, Refusal
from edgeft.graph.passes.surgery import constant_ints, replace_

_RANK = 2


def flatten_reshapes_(model: ir.Model) -> PassReport:
    """Replace every Reshape in the main graph of `model` that only merges all axes but the first by Flatten."""
    changed, refused = [], []
    for node in tuple(model.graph):
        if node.op_type != "Reshape" or node.domain not in DEFAULT_DOMAINS:
            continue
        name = node.name or node.op_type
        if node.outputs[0].shape is not None and len(node.outputs[0].shape) != _RANK:
            continue
        if reason := _refuse(node):
            refused.append(Refusal(name, reason))
            continue
        flatten = ir.node("Flatten", [node.inputs[0]], {"axis": 1}, name=node.name)
        flatten.outputs[0].type, flatten.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        changed.append(name)
        replace_(node, [flatten])
    return PassReport("flatten_reshapes", tuple(changed), tuple(refused))


def _refuse(node: ir.Node) -> str | None:
    """Return why `node` is not a flatten, or None."""
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) < _RANK:
        return "the input's rank is unknown or below 2"
    target = constant_ints(node, "shape", 1)
    if target is None:
        return "the target shape is not constant"
    features = [size for size in x.shape[1:] if isinstance(size, int)]
    if len(features) != len(x.shape) - 1:
        return f"the input's shape {x.shape} is not static past the batch axis"
    copies_batch = not node.attributes.get_int("allowzero", 0)
    size = math.prod(features)
    keeps_batch = {(-1, size), (0, size), (0, -1)} if copies_batch else {(-1, size)}
    if isinstance(x.shape[0], int):
        keeps_batch |= {(x.shape[0], size), (x.shape[0], -1)}
    if not size or target not in keeps_batch:
        return f"target {list(target)} does not merge all axes of {x.shape} but the first"
    return None
