"""The integers that quantized activations of a graph can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

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
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in arrays or len(node.input) <= _WITH_SCALE:
            continue
        if arrays[node.input[1]].size == 1:
            found[node.output[0]] = grid_of(node, arrays)
    return found


def grid_of(node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> Grid:
    """Return the grid of a QuantizeLinear or DequantizeLinear with one scale and a zero point, both in `arrays`."""
    scale, zero = (arrays[name] for name in node.input[1:3])
    limits, step, origin = np.iinfo(zero.dtype), float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    return Grid(step, (limits.min - origin) * step, (limits.max - origin) * step)
