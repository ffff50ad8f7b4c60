"""Static int8: from a float graph and calibration images to a Q/DQ graph for one target.

plan  ->  one calibration pass  ->  ranges  ->  Q/DQ on activations  ->  one ordered sweep over the weights
"""

import math
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from edgeft.core.events import EventSink, ignore
from edgeft.quantize.affine import AffineParams, QuantizationError, integer_range, params_for_range
from edgeft.quantize.calibration import CalibrationStatistics, Execution, Pixels, observe
from edgeft.quantize.insert import insert_activations_
from edgeft.quantize.observers import Histogram
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import Plan, Skip, make_plan
from edgeft.quantize.proof import count_unsafe_pairs
from edgeft.quantize.ranges import minmax_range, mse_range
from edgeft.quantize.sweep import WeightMethod, quantize_weights_

_FEWEST_MOMENT_IMAGES = 32


@dataclass(frozen=True, slots=True)
class StaticMethod:
    """How ranges and weights are chosen.

    Args:
        mse_ranges: clip activations where that costs least; else at the extremes.
        weights: how weights are rounded and biases corrected.
        prefix_images: how many images go through the quantized prefix.
    """

    mse_ranges: bool
    weights: WeightMethod
    prefix_images: int

    @property
    def label(self) -> str:
        """What was done, e.g. "mse+pair_safe+float_target+gptq+bias_correction"."""
        parts = ["mse" if self.mse_ranges else "minmax", "pair_safe"]
        parts += ["float_target"] if self.weights.follow_float else []
        parts += ["gptq"] if self.weights.gptq else []
        parts += ["bias_correction"] if self.weights.correct_bias else []
        return "+".join(parts)


@dataclass(frozen=True, slots=True)
class StaticResult:
    """A quantized graph and what is to be told about it.

    Args:
        model: the Q/DQ graph.
        skips: operators left in float, with reasons.
        unsafe_pairs: counted on `model` itself.
        uncorrected: operators without a bias, whose mean could not be restored.
    """

    model: onnx.ModelProto
    skips: tuple[Skip, ...]
    unsafe_pairs: int
    uncorrected: tuple[str, ...]


def static_method(name: str, bias_images: int) -> StaticMethod:
    """Return what `compress.method` and `compress.bias_images` stand for.

    Args:
        name: auto, minmax, mse, gptq or qat; of the last the rung that training starts from.
        bias_images: images of the quantized prefix; 0 corrects no bias (weights still see some images).
    """
    closed_form = name in {"auto", "gptq", "qat"}
    weights = WeightMethod(follow_float=closed_form, gptq=closed_form, correct_bias=bias_images > 0)
    return StaticMethod(name != "minmax", weights, bias_images or _FEWEST_MOMENT_IMAGES)


def quantize_static(
    float_model: onnx.ModelProto,
    placement: Placement,
    pixels: Pixels,
    method: StaticMethod,
    *,
    execution: Execution | None = None,
    emit: EventSink = ignore,
) -> StaticResult:
    """Return the Q/DQ graph of `float_model` for the target of `placement`.

    Args:
        float_model: a float graph with one image input; left as it is.
        placement: of the target.
        pixels: calibration images, uint8 [N, H, W, 3]; the first `method.prefix_images` also round weights.
        method: how.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the graph is already quantized or has nothing to quantize, the images do not fit it, or an
            activation is NaN or infinite.
    """
    execution = execution or Execution()
    model = ir.from_proto(float_model)
    ShapeInferencePass()(model)
    untouched = model.clone()
    plan = make_plan(model, placement)
    prefix = pixels[: method.prefix_images]
    means = {str(op.node.outputs[0].name): (1 if op.node.op_type == "Conv" else -1) for op in plan.weighted}
    statistics = observe(
        model,
        pixels,
        observed=plan.observed,
        means=means if method.weights.correct_bias else None,
        mean_images=len(prefix),
        execution=execution,
        emit=emit,
    )
    params = activation_params(plan, placement, statistics, mse=method.mse_ranges)
    insert_activations_(model, plan, params)
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
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    unsafe = count_unsafe_pairs(proto)
    if placement.saturating_pairs and unsafe:
        raise QuantizationError(f"{unsafe} weight pairs can saturate on CPUs without VNNI; this is a bug, report it")
    return StaticResult(proto, plan.skips, unsafe, sweep.uncorrected)


def activation_params(
    plan: Plan, placement: Placement, statistics: CalibrationStatistics, *, mse: bool
) -> dict[str, AffineParams]:
    """Return the parameters of every observed tensor, inside the limits of the Relu or Clip that its Q absorbs."""
    chosen = {}
    for tensor in plan.observed:
        low, high = _range(statistics.histograms[tensor], placement, mse=mse)
        least, most = plan.limits.get(tensor, (-math.inf, math.inf))
        chosen[tensor] = params_for_range(max(low, least), min(high, most), placement.activation)
    return chosen


def _range(histogram: Histogram, placement: Placement, *, mse: bool) -> tuple[float, float]:
    if not mse:
        return minmax_range(histogram)
    qmin, qmax = integer_range(placement.activation)
    return mse_range(histogram, qmax - qmin, placement.activation.symmetric)
