"""Static int8: from a float graph and calibration images to a Q/DQ graph for one target.

plan  ->  one calibration pass  ->  ranges  ->  Q/DQ on activations  ->  one ordered sweep over the weights
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from edgeft.core.events import EventSink, ignore
from edgeft.core.memory import give_back
from edgeft.graph.branches import holds_graphs
from edgeft.graph.passes.plain_pixels import plain_pixels_
from edgeft.graph.segments import Segment
from edgeft.quantize.affine import AffineParams, Floats, QuantizationError, integer_range, params_for_range
from edgeft.quantize.calibration import Execution, Pixels, observe
from edgeft.quantize.collected import CalibrationRequest, CalibrationStatistics
from edgeft.quantize.equalise import equalise_, keep_factors_
from edgeft.quantize.gates import gate_integers_, gate_params
from edgeft.quantize.hold_float import hold_floats_
from edgeft.quantize.importance import channel_importance
from edgeft.quantize.insert import insert_activations_
from edgeft.quantize.noisy import Noise, multiplications, rounding_noise
from edgeft.quantize.observers import Histogram
from edgeft.quantize.one_input import Calibration
from edgeft.quantize.placement import IntegerType, Placement, TensorType
from edgeft.quantize.plan import Plan, Skip, make_plan
from edgeft.quantize.pools import pool_integers_
from edgeft.quantize.proof import proven_pairs
from edgeft.quantize.ranges import RANGES, Grid
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.search import segment_chain
from edgeft.quantize.smoothed import smooth_
from edgeft.quantize.sweep import WeightMethod, quantize_weights_

_SPARE = 0.08
"""Of the multiplications that would be of integers: early layers with few channels gain next to nothing from them. In a
transformer every layer gains: in OpenVINO, MiniLM was 13 % slower with this share in float, at .3 dB more SQNR."""
_NOISE_IMAGES, _NOISE_BATCH = 16, 2
_SIGNED = TensorType(IntegerType.S8, symmetric=True)
FEWEST_MOMENT_IMAGES = 32
"""Inputs that tell what a weight's error costs, where no bias is corrected."""


@dataclass(frozen=True, slots=True)
class StaticMethod:
    """How ranges and weights are chosen.

    Args:
        ranges: how the ranges of activations are chosen, a name in RANGES.
        weights: how weights are rounded and biases corrected.
        prefix_images: how many images go through the quantized prefix.
        keep_float: operators that stay in float, each with the reason.
        equalise: whether channels between convolutions are equalised first.
        spare: share of the integer multiplications that may stay in float to spare what suffers most, 0..1.
    """

    ranges: str
    weights: WeightMethod
    prefix_images: int
    keep_float: Mapping[str, str] = field(default_factory=dict)
    equalise: bool = False
    spare: float = 0.0

    @property
    def precision(self) -> str:
        """What the candidate is called."""
        return "int8"

    @property
    def label(self) -> str:
        """What was done, e.g. "mse+pair_safe+float_target+gptq+bias_correction"."""
        parts = ["equalised"] if self.equalise else []
        parts += [self.ranges, "pair_safe"]
        parts += ["float_target"] if self.weights.follow_float else []
        parts += ["gptq"] if self.weights.gptq else []
        parts += ["bias_correction"] if self.weights.correct_bias else []
        parts += ["float_segments"] if self.keep_float else []
        return "+".join(parts)


@dataclass(frozen=True, slots=True)
class StaticResult:
    """A quantized graph and what is to be told about it.

    Args:
        model: the Q/DQ graph.
        label: what was done, see `StaticMethod.label`.
        reference: the float graph that it follows tensor by tensor: the one given, equalised where that was asked for.
        skips: operators left in float, with reasons.
        unsafe_pairs: counted on `model` itself.
        uncorrected: operators without a bias, whose mean could not be restored.
        spared: operators left in float to spare tensors, each with the reason.
    """

    model: onnx.ModelProto
    label: str
    reference: onnx.ModelProto
    skips: tuple[Skip, ...]
    unsafe_pairs: int
    uncorrected: tuple[str, ...]
    spared: Mapping[str, str] = field(default_factory=dict)


def static_method(
    name: str, bias_images: int, float_share: float | None = None, *, transformer: bool = False
) -> StaticMethod:
    """Return what `compress.method` and `compress.bias_images` stand for.

    Args:
        name: auto, gptq, qat (of which this is the start), or a method of choosing ranges.
        bias_images: images of the quantized prefix; 0 corrects no bias (weights still see some images).
        float_share: of the integer multiplications, for auto, gptq and qat; None is 0.08, and 0 for transformers.
        transformer: whether auto, gptq and qat shall suit one: ranges keep all but the last few values, and weights do
            not make up for quantized inputs. Of MiniLM on reviews, in OpenVINO, the scores' mean error was .015 with
            mse ranges and .009 with these, and .020 where weights followed.

    Raises:
        QuantizationError: there is no such method.
    """
    closed_form = name in {"auto", "gptq", "qat"}
    ranges = ("percentile" if transformer else "mse") if closed_form else name
    if ranges not in RANGES:
        raise QuantizationError(
            f"there is no method {name!r}", hint=f"one of auto, gptq, qat, dynamic, {', '.join(RANGES)}"
        )
    weights = WeightMethod(follow_float=closed_form and not transformer, gptq=closed_form, correct_bias=bias_images > 0)
    if float_share is None:
        float_share = 0.0 if transformer else _SPARE
    spare = float_share if closed_form else 0.0
    return StaticMethod(ranges, weights, bias_images or FEWEST_MOMENT_IMAGES, equalise=closed_form, spare=spare)


def quantize_static(
    float_model: onnx.ModelProto,
    placement: Placement,
    pixels: Calibration,
    method: StaticMethod,
    *,
    execution: Execution | None = None,
    emit: EventSink = ignore,
    memo: Path | None = None,
) -> StaticResult:
    """Return the Q/DQ graph of `float_model` for the target of `placement`.

    Args:
        float_model: a float graph with one input; left as it is.
        placement: of the target.
        pixels: calibration images, uint8 [N, H, W, 3]; the first `method.prefix_images` also round weights.
        method: how.
        execution: threads and batch.
        emit: where progress goes.
        memo: folder where calibration statistics are kept by content, for other methods and for a run that resumes;
            None keeps none.

    Raises:
        QuantizationError: the graph is already quantized or has nothing to quantize, the images do not fit it, or an
            activation is NaN or infinite.
    """
    execution = execution or Execution()
    model = ir.from_proto(float_model)
    ShapeInferencePass()(model)
    if placement.activation.dtype is not IntegerType.U8:
        plain_pixels_(model)
    plan = make_plan(model, placement, method.keep_float)
    prefix = pixels[: method.prefix_images]
    factors: Mapping[str, Floats] = {}
    if method.equalise:
        few = ArrayRows(str(model.graph.inputs[0].name), prefix)
        factors = equalise_(model, few, execution, emit)
        if placement.smooths and smooth_(model, plan, few, execution, emit):
            plan = make_plan(model, placement, method.keep_float)
        give_back()
    untouched = model.clone()
    means = {str(op.node.outputs[0].name): (1 if op.node.op_type == "Conv" else -1) for op in plan.weighted}
    request = CalibrationRequest(
        channel_importance(plan), means if method.weights.correct_bias else {}, mean_images=len(prefix)
    )
    statistics = observe(model, pixels, request, execution=execution, emit=emit, memo=memo)
    give_back()
    params = activation_params(plan, placement, statistics, method.ranges)
    spared: Mapping[str, str] = {}
    if method.spare and not any(map(holds_graphs, model.graph)):  # parts of such a graph cannot be run alone
        fed = {str(model.graph.inputs[0].name): prefix[:_NOISE_IMAGES]}
        gently = replace(execution, batch=min(execution.batch, _NOISE_BATCH))
        proto = ir.to_proto(untouched)
        chain = segment_chain(proto, placement)
        noise = _noise(proto, chain, placement, params, fed, gently, emit)
        spared = noise.spare(method.spare, multiplications(plan, chain))
        give_back()
        method = replace(method, keep_float={**spared, **method.keep_float})
        plan = make_plan(model, placement, method.keep_float)
        if not set(plan.observed) <= set(statistics.histograms):  # a tensor behind a move now has a Q of its own
            request = replace(request, observed=channel_importance(plan))
            statistics = observe(model, pixels, request, execution=execution, emit=emit, memo=memo)
        params = activation_params(plan, placement, statistics, method.ranges)
    insert_activations_(model, plan, params)
    gate_integers_(model, plan, placement)
    sweep = quantize_weights_(
        model,
        untouched,
        plan,
        placement,
        params,
        statistics.means,
        prefix,
        method=method.weights,
        execution=execution,
        emit=emit,
    )
    if placement.pools_integers:
        pool_integers_(model)
    hold_floats_(model, placement)
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    keep_factors_(proto, factors)
    onnx.checker.check_model(proto)
    unsafe = proven_pairs(proto, placement)
    reference = ir.to_proto(untouched)
    return StaticResult(proto, method.label, reference, plan.skips, unsafe, sweep.uncorrected, spared)


def _two_sided(histogram: Histogram) -> bool:
    """Return whether a type with a sign wastes less than a quarter of its steps on what was seen."""
    return histogram.high < -2 * histogram.low and -histogram.low < 2 * histogram.high


def _noise(
    model: onnx.ModelProto,
    chain: tuple[Segment, ...],
    placement: Placement,
    params: Mapping[str, AffineParams],
    inputs: Mapping[str, Pixels],
    execution: Execution,
    emit: EventSink,
) -> Noise:
    """Return what rounded tensors cost at the last float output of `placement` that `model` has, or at its end."""
    made = {name for node in model.graph.node for name in node.output}
    known = [name for name in placement.float_outputs if name in made]
    output = known[-1] if known else model.graph.output[0].name
    return rounding_noise(model, chain, params, output, inputs, execution, emit)


def activation_params(
    plan: Plan, placement: Placement, statistics: CalibrationStatistics, ranges: str
) -> dict[str, AffineParams]:
    """Return the parameters of every observed tensor, inside the limits of the Relu or Clip that its Q absorbs.

    A HardSigmoid built as a gate has its own grid, [0, 1].
    """
    signed = {str(value.name) for op in plan.ops if op.node.op_type in placement.signed for value in op.inputs}
    chosen = {}
    for tensor in plan.observed:
        histogram = statistics.histograms[tensor]
        kind = _SIGNED if tensor in signed and _two_sided(histogram) else placement.activation
        qmin, qmax = integer_range(kind)
        low, high = RANGES[ranges](histogram, Grid(qmax - qmin, kind.symmetric))
        least, most = plan.limits.get(tensor, (-math.inf, math.inf))
        chosen[tensor] = params_for_range(max(low, least), min(high, most), kind, (least, most))
    return chosen | gate_params(plan, placement)
