"""Swap HardSwish and SiLU for Relu and train the weights until the graph does again what it did.

The float graph is the teacher, at the output and behind every segment. Each weight's rate is relative to its own
magnitude, so that one number serves layers into which a BatchNorm was folded, large and small.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper

from edgeft.core.events import EventSink, ignore
from edgeft.graph.module import GraphModule
from edgeft.graph.passes.swap_activations import swap_activations_
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.follow import Lessons, follow
from edgeft.quantize.plan import constant

_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Healed:
    """A graph with other activations, trained to follow the one it was.

    Args:
        model: the float graph.
        swapped: names of the operators that are a Relu now.
        losses: of each step's batch, before the step.
    """

    model: onnx.ModelProto
    swapped: tuple[str, ...]
    losses: tuple[float, ...]


def heal(graph: onnx.ModelProto, lessons: Lessons, rate: float, *, emit: EventSink = ignore) -> Healed:
    """Return `graph` with its activations swapped, trained to follow `graph`.

    Args:
        graph: a float graph; left as it is.
        lessons: how long, and on what.
        rate: of weights, relative to their mean magnitude; falls to 0.
        emit: where progress goes.

    Raises:
        QuantizationError: it has no activation to swap, there are no images, or the loss is not finite.
        UnsupportedNodeError: an operator cannot be trained through; names the node.
    """
    model = ir.from_proto(graph)
    swapped = swap_activations_(model).changed
    if not swapped:
        raise QuantizationError(
            "there is no HardSwish or SiLU to swap", hint="leave out --swap-activations (compress.swap_activations)"
        )
    names = _trainable(model)
    if not names:
        raise QuantizationError("the graph has no float weights to heal with", hint="leave out --swap-activations")
    student = GraphModule(model, trainable=names)
    groups = [
        {"params": [student.tensor(name)], "lr": rate * max(float(student.tensor(name).detach().abs().mean()), 1e-4)}
        for name in names
    ]
    losses = follow(
        student,
        GraphModule(ir.from_proto(graph), trainable=[]),
        torch.optim.Adam(groups),
        lessons,
        emit=emit,
        task="heal swapped activations",
    )
    made = ir.to_proto(model)
    for tensor in made.graph.initializer:
        if tensor.name in names:
            array = student.tensor(tensor.name).detach().numpy()
            tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), tensor.name))
    onnx.checker.check_model(made)
    return Healed(made, swapped, losses)


def _trainable(model: ir.Model) -> list[str]:
    """Return the float weights and biases of weighted operators, each once."""
    found: dict[str, None] = {}
    for node in model.graph:
        for value in node.inputs[1:3] if node.op_type in _WEIGHTED else ():
            array = constant(value)
            if value is not None and array is not None and array.dtype == np.float32 and value.is_initializer():
                found.setdefault(str(value.name))
    return list(found)
