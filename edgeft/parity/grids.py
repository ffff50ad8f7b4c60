"""The integers that quantized activations of a graph can be."""

from dataclasses import dataclass

import numpy as np
import onnx

_WITH_SCALE = 2
"""Inputs of a DequantizeLinear without a zero point."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers of a quantized tensor: its scale, and the real values at which it ends."""

    scale: float
    low: float
    high: float


def grids(model: onnx.ModelProto) -> dict[str, Grid]:
    """Return dequantized tensor -> its grid, for activations with one scale."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in arrays or len(node.input) <= _WITH_SCALE:
            continue
        scale, zero = (onnx.numpy_helper.to_array(arrays[name]) for name in node.input[1:3])
        if scale.size == 1:
            limits, step, origin = np.iinfo(zero.dtype), float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
            found[node.output[0]] = Grid(step, (limits.min - origin) * step, (limits.max - origin) * step)
    return found
