"""Quantization-aware training on the graph that ships, with the float graph as teacher.

Labels are not needed (follow.py). Training starts from a quantized graph (the best that calibration found) and moves
its weights, biases and activation scales; after each step weights are projected back to pair-safe ones. Learning rates
are in steps of each tensor's own grid: with Adam an update is about as large as its rate, so `rate` 0.05 moves a weight
by at most some 5 % of a quantization step at a time, whatever the layer. Adam's steps do not depend on the gradient's
size, so LSQ's gradient scale (Esser et al. 2020, section 2.2) would change nothing and is left out.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import torch

from edgeft.core.events import EventSink, ignore
from edgeft.graph.module import GraphModule
from edgeft.quantize.affine import Floats
from edgeft.quantize.candidates import LOGITS
from edgeft.quantize.follow import Lessons, follow
from edgeft.quantize.placement import Placement
from edgeft.quantize.proof import proven_pairs
from edgeft.quantize.qat_graph import TrainableGraph
from edgeft.quantize.rows import Images

_BIAS_SHARE = 0.01
"""Biases were set exactly, by mean outputs, and one moves all positions of a channel: with a share of 1 a single
step took Lite0's logit error from .089 to .110."""


@dataclass(frozen=True, slots=True)
class QatMethod:
    """How long and how fast to train.

    Args:
        steps: optimizer steps.
        batch: images of a step.
        rate: of weights, in quantization steps; falls to 0 along a cosine.
        scale_rate: of activation scales, relative to their size; 0 keeps them.
        tensors: what follows the float graph's: the logits first, then inner tensors of the same name in both.
        answers: what the logits follow in place of the float graph's, float32 [N, K] of the images; None: its own.
        threads: CPU threads.
    """

    steps: int = 60
    batch: int = 16
    rate: float = 0.05
    scale_rate: float = 1e-4
    tensors: tuple[str, ...] = (LOGITS,)
    answers: Floats | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class QatResult:
    """A trained Q/DQ graph.

    Args:
        model: the graph.
        losses: of each step's batch, before the step.
        unsafe_pairs: counted on `model` itself.
    """

    model: onnx.ModelProto
    losses: tuple[float, ...]
    unsafe_pairs: int


def tune(
    quantized: onnx.ModelProto,
    float_model: onnx.ModelProto,
    placement: Placement,
    images: Images,
    method: QatMethod,
    *,
    rng: np.random.Generator,
    emit: EventSink = ignore,
) -> QatResult:
    """Return `quantized` after training it to do what `float_model` does on `images`.

    Args:
        quantized: the Q/DQ graph to start from; left as it is.
        float_model: the graph that it was made from; the teacher.
        placement: of the target.
        images: what to train on, in the type that the graphs take.
        method: how long and how fast.
        rng: draws the batches.
        emit: where progress goes.

    Raises:
        QuantizationError: there are no images, the loss is not finite (says at which step), or the result is unlawful.
        UnsupportedNodeError: an operator cannot be trained through; names the node.
    """
    student = TrainableGraph(quantized, placement)
    losses = follow(
        student.module,
        GraphModule(ir.from_proto(float_model), trainable=[]),
        _optimizer(student, method),
        Lessons(images, rng, method.steps, method.batch, method.tensors, method.answers, method.threads),
        after=student.project_,
        emit=emit,
        task="train quantized",
    )
    model = student.write_back()
    onnx.checker.check_model(model)
    return QatResult(model, losses, proven_pairs(model, placement))


def _optimizer(student: TrainableGraph, method: QatMethod) -> torch.optim.Adam:
    """Return Adam with a rate of its own for each tensor."""
    tensor = student.module.tensor
    groups: list[dict[str, object]] = []
    for layer in student.layers:
        step = float(tensor(layer.scale).detach().mean())
        groups.append({"params": [tensor(layer.weight)], "lr": method.rate * step})
        if layer.trained_bias is not None:
            # a share of what a weight's step does at the middle of the input's 256 values
            middle = 128 * float(tensor(layer.input_scale).detach())
            groups.append({"params": [tensor(layer.trained_bias)], "lr": _BIAS_SHARE * method.rate * step * middle})
    groups += [
        {"params": [tensor(name)], "lr": method.scale_rate * float(tensor(name).detach())} for name in student.scales
    ]
    return torch.optim.Adam(groups)
