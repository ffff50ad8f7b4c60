"""From the closed form to training: rungs, each judged by the paired non-inferiority test on validation.

    closed_form    ranges, weights that follow the float graph, GPTQ under the pair rule, bias correction: one sweep
    partial_float  the same with more segments in float, around the tensors that suffer most from 8 bits
    qat            training of the better of these with the float graph as teacher
    dynamic        integer products that quantize their input as they run: the one rung of transformers in onnxruntime
    weight_only    weights in 4 or 8 bits, activations in float
    half           fp16

Ranges, bias correction and closed-form rounding are one rung, not three: they share the sweep through the quantized
prefix, which is nearly all of their cost. `auto` stops at the first rung that holds the margin; of those climbed, the
one nearest to float ships, so a rung that does harm is shown, not used.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import onnx

from edgeft.core.errors import EdgeftError
from edgeft.core.events import EventSink, ignore
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.dynamic import DynamicMethod, is_transformer
from edgeft.quantize.half import HalfMethod
from edgeft.quantize.packed import pack, packed_tokens, unpack, without_picks
from edgeft.quantize.placement import Placement
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.rungs import (
    PARTIAL_FLOAT,
    QAT,
    Climb,
    Judge,
    Ladder,
    Method,
    Rung,
    closed_form,
    one_step,
    partial_float,
    swapped,
    trained,
)
from edgeft.quantize.search import Device
from edgeft.quantize.static import FEWEST_MOMENT_IMAGES, StaticMethod, static_method
from edgeft.quantize.weight_only import WeightOnlyMethod


def method_for(
    graph: onnx.ModelProto,
    placement: Placement,
    precision: str,
    name: str,
    images: int,
    float_share: float | None = None,
) -> Method:
    """Return what `compress.precision` and `compress.method` stand for.

    Args:
        graph: the float graph; `auto` is dynamic where it is a transformer and the target can, else static.
        placement: of the target.
        precision: int8, int4 or fp16.
        name: of an int8 method: auto, dynamic, weight_only, or a static method.
        images: how many calibration inputs round weights; 0 corrects no bias.
        float_share: see `static_method`.

    Raises:
        QuantizationError: there is no such method.
    """
    if precision == "fp16":
        return HalfMethod(images or FEWEST_MOMENT_IMAGES)
    if precision == "int4" or name == "weight_only":
        return WeightOnlyMethod(4 if precision == "int4" else 8, images or FEWEST_MOMENT_IMAGES)
    if name == "dynamic" or (name == "auto" and placement.dynamic and is_transformer(graph)):
        return DynamicMethod(images or FEWEST_MOMENT_IMAGES)
    return static_method(name, images, float_share, transformer=is_transformer(graph))


def climb_rule(method: str) -> Climb:
    """Return what follows the first rung, for a `compress.method`."""
    rules: Mapping[str, Climb] = {"qat": "always", "auto": "until it holds"}
    return rules.get(method, "never")


def climb(
    graph: onnx.ModelProto, ladder: Ladder, judge: Judge, *, execution: Execution, emit: EventSink = ignore
) -> tuple[Rung, ...]:
    """Return the rungs that were climbed, in order.

    Args:
        graph: a float graph with one input, or for a static method with several of tokens.
        ladder: how.
        judge: what a graph is worth.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the graph cannot be quantized, or has several inputs that are no tokens; or training is
            asked for and the graph cannot be trained, or torch is not installed.
    """
    if not isinstance(ladder.method, StaticMethod):
        for asked, what in ((ladder.device is not None, "search"), (ladder.swap, "swapping activations")):
            if asked:
                raise QuantizationError(
                    f"{what} is for a statically quantized graph; this one is {ladder.method.label}",
                    hint="use a static method, e.g. --method gptq (in a recipe: compress.method)",
                )
        return (one_step(graph, ladder, ladder.method, judge, execution, emit),)
    if ladder.swap:
        return _climb_swapped(graph, ladder, judge, execution, emit)
    if len(graph.graph.input) > 1:
        return _climb_packed(graph, ladder, judge, execution, emit)
    return _climb_static(graph, ladder, ladder.method, judge, execution, emit)


def _climb_static(
    graph: onnx.ModelProto,
    ladder: Ladder,
    method: StaticMethod,
    judge: Judge,
    execution: Execution,
    emit: EventSink,
) -> tuple[Rung, ...]:
    if ladder.climb == "always" and ladder.training is None:
        raise QuantizationError(
            "int8 is trained on images, or on arrays for one input, and this model reads several or texts",
            hint="use method gptq or dynamic",
        )
    first = closed_form(graph, ladder, method, judge, execution, emit)
    if ladder.climb == "always":
        return (first, trained(graph, first, ladder, judge, execution, emit))
    rungs = [first]
    if ladder.climb == "until it holds":
        for name, step in ((PARTIAL_FLOAT, partial_float), (QAT, trained)):
            if rungs[-1].holds:
                break
            try:
                rungs.append(step(graph, best(rungs), ladder, judge, execution, emit))
            except EdgeftError as error:
                missed = f"the margin is not held, and {name} was not possible: {error}"
                rungs[-1] = dataclasses.replace(rungs[-1], notes=(*rungs[-1].notes, missed))
    return tuple(rungs)


def _climb_swapped(
    graph: onnx.ModelProto, ladder: Ladder, judge: Judge, execution: Execution, emit: EventSink
) -> tuple[Rung, ...]:
    """Return the rungs of `graph` with other activations, and where none holds the margin, those of `graph` itself."""
    own = dataclasses.replace(ladder, swap=False)
    started = time.perf_counter()
    healed = swapped(graph, ladder, execution, emit)
    seconds = time.perf_counter() - started
    rungs = [
        dataclasses.replace(rung, name=f"swapped_{rung.name}", label=f"relu+{rung.label}")
        for rung in climb(healed.model, own, judge, execution=execution, emit=emit)
    ]
    rungs[0] = dataclasses.replace(rungs[0], seconds=rungs[0].seconds + seconds)
    alone = judge(healed.model).validation
    told = ", ".join(
        f"{key} {alone[key]:.4g}" for key in ("agreement", "mean_abs_logit_error") if alone[key] is not None
    )
    note = f"{len(healed.swapped)} activations were swapped for Relu and healed by training; in float: {told}"
    notes = [note, *rungs[-1].notes]
    if ladder.climb != "never" and not any(rung.holds for rung in rungs):
        notes[0] += "; no such graph holds the margin, so the graph as it was is quantized, too"
        rungs += climb(graph, own, judge, execution=execution, emit=emit)
        notes += rungs[-1].notes
    rungs[-1] = dataclasses.replace(rungs[-1], notes=tuple(dict.fromkeys(notes)))
    return tuple(rungs)


def _climb_packed(
    graph: onnx.ModelProto, ladder: Ladder, judge: Judge, execution: Execution, emit: EventSink
) -> tuple[Rung, ...]:
    """Return the rungs of a `graph` with several token inputs, climbed with one; each is judged with its own."""
    device = ladder.device
    if device is not None:
        profile, race = device.profile, device.race
        device = Device(
            lambda model: profile(unpack(model, graph)), lambda models: race([unpack(model, graph) for model in models])
        )
    whole = pack(graph)
    one = dataclasses.replace(
        ladder, calibration=ArrayRows(whole.graph.input[0].name, packed_tokens(ladder.calibration)), device=device
    )
    rungs = climb(whole, one, lambda model: judge(unpack(model, graph)), execution=execution, emit=emit)
    return tuple(dataclasses.replace(rung, skips=without_picks(rung.skips)) for rung in rungs)


def best(rungs: Sequence[Rung]) -> Rung:
    """Return the rung nearest to float, among those that hold the margin where any does.

    One that holds it and follows a teacher comes first: it was asked for, and leaves float on purpose.
    """
    holding = [rung for rung in rungs if rung.holds]
    pool = [rung for rung in holding if rung.taught] or holding or rungs
    return min(pool, key=lambda rung: float(str(rung.judged.validation["mean_abs_logit_error"])))
