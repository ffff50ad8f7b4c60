r"""What the error of a quantized graph is made of: weights, clipping, rounding, and the runtime's own kernels.

Each step adds one cause to the graph before it, and the error is what that step moves the output by:

    base > weights > clipping > rounding > runtime
           |         |          |          the runtime's fused integer kernels instead of operator by operator
           |         |          activations rounded to the integers of their grid
           |         activations clipped to the range of their grid, in float
           the new graph's weights and biases, activations in float

so the steps' vectors add up to the whole difference exactly; their mean absolute values need not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.parity.align import Pair
from edgeft.parity.grids import Grid, grid_of, grids
from edgeft.parity.layers import one_input
from edgeft.quantize.gates import WIDE
from edgeft.quantize.rows import Rows

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Split:
    """Mean absolute differences of one tensor between two graphs, by cause.

    Args:
        tensor: its name in the base graph.
        n: inputs.
        total: from the base to the new graph in the runtime.
        weights: see the module.
        clipping: see the module.
        rounding: see the module.
        runtime: see the module.
    """

    tensor: str
    n: int
    total: float
    weights: float
    clipping: float
    rounding: float
    runtime: float


def split(base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, last: Pair, threads: int) -> Split | None:
    """Return what the error of `last` is made of; None where activations are not quantized by Q/DQ pairs.

    Args:
        base: the float graph.
        new: the quantized graph.
        rows: inputs.
        last: the tensor that is compared, the logits of a classifier.
        threads: CPU threads.
    """
    unclipped, clipped = without_rounding(new, {}), without_rounding(new, grids(new))
    if unclipped is None or clipped is None or not any(node.op_type == _QUANTIZE for node in new.graph.node):
        return None
    ways = [(base, last.name, True), (unclipped, last.seen, True), (clipped, last.seen, True)]
    ways += [(new, last.seen, False), (new, last.seen, True)]
    outputs = [_outputs(model, tensor, rows, threads, optimise=optimise) for model, tensor, optimise in ways]
    steps = [float(np.abs(after - before).mean()) for before, after in pairwise(outputs)]
    return Split(last.name, len(rows), float(np.abs(outputs[-1] - outputs[0]).mean()), *steps)


def without_rounding(model: onnx.ModelProto, kept: Mapping[str, Grid]) -> onnx.ModelProto | None:
    """Return `model` with activations in float, clipped to `kept` by the name of the dequantized tensor.

    What a gate's own grid computes (quantize/gates.py) stays, clip and factor. None where an operator reads the
    integers of an activation itself.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    sources = {node.output[0]: node for node in model.graph.node if node.op_type == _QUANTIZE}
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in found.graph.node:
        if node.op_type == _QUANTIZE:
            continue
        if node.op_type == _DEQUANTIZE and node.input[0] in sources:
            name, made = node.output[0], sources[node.input[0]]
            source, grid = made.input[0], kept.get(name)
            if made.input[1].endswith(WIDE):  # a gate: its clip and its factor are no rounding
                clipped = f"{name}::clipped"
                nodes.append(_clip(found, source, grid_of(made, arrays), clipped))
                factor = np.asarray(arrays[node.input[1]] / arrays[made.input[1]])
                ratio = onnx.numpy_helper.from_array(factor, f"{name}::ratio")
                found.graph.initializer.append(ratio)
                nodes.append(onnx.helper.make_node("Mul", [clipped, ratio.name], [name], node.name))
            elif grid is None:
                nodes.append(onnx.helper.make_node("Identity", [source], [name], node.name))
            else:
                nodes.append(_clip(found, source, grid, name))
            continue
        if any(name in sources for name in node.input):
            return None
        nodes.append(node)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del found.graph.node[:]
    found.graph.node.extend(copied)
    return found


def _clip(model: onnx.ModelProto, source: str, grid: Grid, name: str) -> onnx.NodeProto:
    ends = [f"{name}::low", f"{name}::high"]
    for end, value in zip(ends, (grid.low, grid.high), strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), end))
    return onnx.helper.make_node("Clip", [source, *ends], [name], name)


def _outputs(model: onnx.ModelProto, tensor: str, rows: Rows, threads: int, *, optimise: bool) -> NDArray[np.float64]:
    session = open_session(with_outputs(model, [tensor]), threads, optimise=optimise)
    found: list[NDArray[Any]] = [session.run([tensor], one_input(rows, i))[0] for i in range(len(rows))]
    return np.concatenate(found).astype(np.float64)
