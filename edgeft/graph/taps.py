"""A model with some inner tensors as extra outputs: how a hop of a parity check, or a calibrator, looks inside."""

from collections.abc import Sequence
from difflib import get_close_matches

import onnx

from edgeft.core.errors import EdgeftError


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of `model` whose outputs are its own and then the tensors `names`, in that order.

    A name that is an output already is not added twice. An output keeps its tensor from being fused away, so timings
    and integer fusions of the copy may differ from the original's, and then values in rounding.

    Args:
        model: left as it is.
        names: tensors of the main graph: node outputs, inputs or initialisers.

    Raises:
        EdgeftError: the main graph has no such tensor.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    graph = tapped.graph
    typed = {value.name: value for value in (*graph.input, *graph.value_info)}
    known = set(typed) | {name for node in graph.node for name in node.output if name}
    known |= {tensor.name for tensor in graph.initializer}
    present = {value.name for value in graph.output}
    for name in names:
        if name in present:
            continue
        if name not in known:
            near = ", ".join(get_close_matches(name, known)) or "none"
            raise EdgeftError(f"the graph has no tensor {name!r}", hint=f"nearest: {near}")
        graph.output.append(typed.get(name, onnx.ValueInfoProto(name=name)))
        present.add(name)
    return tapped
