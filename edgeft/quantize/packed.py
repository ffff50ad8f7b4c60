"""Several token inputs as one array, so that what calibrates on one array calibrates on texts, too.

The packed graph takes int64 [N, K, L] and picks its K former inputs out of it; nothing else of it changes, so what was
quantized is unpacked by taking the picks away. Padding is no text: each row's own tokens are repeated until they fill
the longest, so that ranges and rounding see tokens alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.plan import Skip
from edgeft.quantize.rows import Rows

_PACKED = "packed"
_PICK = f"{_PACKED}::"
_TOKEN_RANK = 2


def pack(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return `graph` with one input.

    Args:
        graph: a graph with several inputs, each int64 [N, L].

    Raises:
        QuantizationError: an input is something else.
    """
    inputs = list(graph.graph.input)
    for value in inputs:
        kind = value.type.tensor_type
        if kind.elem_type != onnx.TensorProto.INT64 or len(kind.shape.dim) != _TOKEN_RANK:
            names = ", ".join(each.name for each in inputs)
            raise QuantizationError(
                f"the graph has {len(inputs)} inputs ({names}); static int8 is for graphs with one, or with tokens "
                f"(int64 [N, L]), and {value.name!r} is neither",
                hint="use --method dynamic or fp16 (in a recipe: compress.method, compress.precision)",
            )
    packed = onnx.ModelProto()
    packed.CopyFrom(graph)
    nodes = list(packed.graph.node)
    del packed.graph.node[:], packed.graph.input[:]
    for place, value in enumerate(inputs):
        pick = f"{_PICK}{value.name}"
        packed.graph.initializer.append(numpy_helper.from_array(np.array(place, np.int64), pick))
        packed.graph.node.append(helper.make_node("Gather", [_PACKED, pick], [value.name], pick, axis=1))
    packed.graph.node.extend(nodes)
    shape: list[str | int | None] = ["N", len(inputs), "L"]
    packed.graph.input.append(helper.make_tensor_value_info(_PACKED, onnx.TensorProto.INT64, shape))
    return packed


def unpack(packed: onnx.ModelProto, graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return `packed`, which came from `pack(graph)` and was quantized, with the inputs of `graph`."""
    found = onnx.ModelProto()
    found.CopyFrom(packed)
    nodes = [node for node in found.graph.node if not node.name.startswith(_PICK)]
    constants = [tensor for tensor in found.graph.initializer if not tensor.name.startswith(_PICK)]
    del found.graph.node[:], found.graph.initializer[:], found.graph.input[:]
    found.graph.node.extend(nodes)
    found.graph.initializer.extend(constants)
    found.graph.input.extend(graph.graph.input)
    onnx.checker.check_model(found)
    return found


def packed_tokens(rows: Rows) -> NDArray[np.int64]:
    """Return int64 [N, K, L]: the inputs of all of `rows`, each row's tokens repeated in place of its padding.

    Raises:
        QuantizationError: two inputs differ in length.
    """
    feeds = rows[: len(rows)]
    lengths = {name: np.shape(values)[1] for name, values in feeds.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise QuantizationError(
            f"the inputs hold different numbers of tokens a row ({told}); static int8 is for inputs of one length",
            hint="use --method dynamic or fp16 (in a recipe: compress.method, compress.precision)",
        )
    whole = np.stack([np.asarray(values, np.int64) for values in feeds.values()], axis=1)
    mask = _mask(feeds)
    if mask is None:
        return whole
    for row, there in zip(whole, mask, strict=True):
        tokens = np.flatnonzero(there)
        if len(tokens):
            row[:] = row[:, np.resize(tokens, row.shape[1])]
    return whole


def without_picks(skips: tuple[Skip, ...]) -> tuple[Skip, ...]:
    """Return `skips` without the operators that `pack` put in."""
    return tuple(skip for skip in skips if not skip.layer.startswith(_PICK))


def _mask(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Return the input that tells tokens from padding, where one is called so."""
    return next((np.asarray(values) for name, values in feeds.items() if "mask" in name), None)
