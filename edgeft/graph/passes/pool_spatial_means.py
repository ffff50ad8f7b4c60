"""Rewrite a mean over all spatial axes as a global average pool.

    ReduceMean(x [N, C, d1, ..., dn], axes = {2, ..., n + 1}, keepdims = 1)  =  GlobalAveragePool(x)
    ReduceMean(x, axes = {2, ..., n + 1}, keepdims = 0)                      =  Flatten(GlobalAveragePool(x), axis = 1)

Both are the sum over d1 x ... x dn values divided by their number. Runtimes have integer and blocked-layout kernels for
GlobalAveragePool and none for ReduceMean.
"""

import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.passes.report import PassReport, Refusal
from edgeft.graph.passes.surgery import constant_ints, replace_

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_CHANNELS = 1


def pool_spatial_means_(model: ir.Model) -> PassReport:
    """Replace every spatial ReduceMean in the main graph of `model` by GlobalAveragePool (and Flatten)."""
    changed, refused = [], []
    for node in tuple(model.graph):
        if node.op_type != "ReduceMean" or node.domain not in DEFAULT_DOMAINS:
            continue
        name = node.name or node.op_type
        if reason := _refuse(node):
            refused.append(Refusal(name, reason))
            continue
        changed.append(name)
        _replace(node)
    return PassReport("pool_spatial_means", tuple(changed), tuple(refused))


def _refuse(node: ir.Node) -> str | None:
    """Return why `node` is no spatial mean, or None."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return "the input's rank is unknown"
    if x.dtype not in _FLOATS:
        return f"the input is {x.dtype}, not a float"
    rank = len(x.shape)
    axes = constant_ints(node, "axes", 1)
    if axes is None:
        return "the axes are not constant"
    spatial = set(range(_CHANNELS + 1, rank))
    if not spatial or {axis % rank for axis in axes} != spatial:
        return f"axes {sorted(axes)} of rank {rank} are not all the spatial axes"
    return None


def _replace(node: ir.Node) -> None:
    x, old = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None:  # _refuse has looked; this tells the type checker
        return
    pool = ir.node("GlobalAveragePool", [x], name=node.name)
    pooled = pool.outputs[0]
    pooled.type = x.type
    pooled.shape = ir.Shape([*x.shape[: _CHANNELS + 1], *[1] * (len(x.shape) - _CHANNELS - 1)])
    if node.attributes.get_int("keepdims", 1):
        replace_(node, [pool])
        return
    flatten = ir.node("Flatten", [pooled], {"axis": 1}, name=f"{node.name}/Flatten")
    flatten.outputs[0].type, flatten.outputs[0].shape = old.type, old.shape
    replace_(node, [pool, flatten])
