"""What an error in each channel of an activation costs at the output of the operators that read it.

For y = W x and a rounding error e of x whose elements are uncorrelated,

    E |W e|^2 = sum_c a_c E[e_c^2],        a_c = sum over outputs and kernel taps of w_c^2

the diagonal of W^T W: the Hessian of the output error in the input. With every value counted a_c times, one histogram
of the tensor tells the expected output error of any range. What this leaves out: errors of neighbours are correlated
where both are clipped, and positions that padding or strides hide from some taps count in full.
Source: the diagonal Hessian of Hassibi & Stork 1993, as Nagel et al. 2021 (section 3.1) use it for ranges.
"""

import numpy as np

from edgeft.quantize.affine import Doubles
from edgeft.quantize.observers import ChannelImportance
from edgeft.quantize.plan import IntegerOp, Plan, constant
from edgeft.quantize.sweep import layout_of

_LARGEST = 2**16 - 1
"""The most important channel's weight: integers, so that weighted counts of parts add up exactly."""


def channel_importance(plan: Plan) -> dict[str, ChannelImportance | None]:
    """Return the importance of each observed tensor's channels, over all weighted operators that read it directly.

    None stands for a tensor that no weighted operator reads, or that two read along different axes, or whose readers'
    weights are all zero: there every value counts the same.
    """
    costs: dict[str, dict[int, Doubles]] = {tensor: {} for tensor in plan.observed}
    for op in plan.weighted:
        tensor = str(op.inputs[0].name)
        if tensor in costs:
            axis, cost = 1 if op.node.op_type == "Conv" else -1, squared_columns(op)
            costs[tensor][axis] = costs[tensor][axis] + cost if axis in costs[tensor] else cost
    return {tensor: _importance(by_axis) for tensor, by_axis in costs.items()}


def squared_columns(op: IntegerOp) -> Doubles:
    """Return a, float64 [C] over the channels of `op`'s input, of its weight [O, C / G, kh, kw] or [O, I] or [I, O]."""
    weight = np.asarray(constant(op.node.inputs[op.rule.weight or 0]), np.float64)
    layout = layout_of(op)
    columns = (layout.to_matrix(weight) ** 2).sum(axis=1)  # [G, K], K = (kh, kw, cin) for Conv
    taps = 1 if layout.geometry is None else layout.geometry.kernel[0] * layout.geometry.kernel[1]
    result: Doubles = columns.reshape(layout.groups, taps, -1).sum(axis=1).reshape(-1)
    return result


def _importance(by_axis: dict[int, Doubles]) -> ChannelImportance | None:
    if len(by_axis) != 1:
        return None
    ((axis, cost),) = by_axis.items()
    largest = cost.max(initial=0.0)
    if largest == 0:
        return None
    return ChannelImportance(axis, np.maximum(np.rint(cost / largest * _LARGEST), 1).astype(np.int64))
