"""From the closed form to training: rungs, each judged by the paired non-inferiority test on validation.

    closed_form   ranges, weights that follow the float graph, GPTQ under the pair rule, bias correction: one sweep
    qat           training of that graph with the float graph as teacher
    dynamic       integer products that quantize their input as they run: the one rung of transformers
    weight_only   weights in 4 or 8 bits, activations in float
    half          fp16

Ranges, bias correction and closed-form rounding are one rung, not three: they share the sweep through the quantized
prefix, which is nearly all of their cost. The rung nearest to float ships, so a rung that does harm is shown, not used.
`auto` ends at the closed form: training takes some ten times as long and brings a few percent of the logit error.
"""

import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.core.errors import EdgeftError
from edgeft.core.events import EventSink, ignore
from edgeft.core.stage import Json
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution, Pixels
from edgeft.quantize.candidates import LOGITS, Judged
from edgeft.quantize.dynamic import DynamicMethod, prefers_dynamic, quantize_dynamic
from edgeft.quantize.half import HalfMethod, to_half
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import Skip
from edgeft.quantize.rows import Rows
from edgeft.quantize.search import Device, Found, search, segment_chain
from edgeft.quantize.static import FEWEST_MOMENT_IMAGES, StaticMethod, quantize_static, static_method
from edgeft.quantize.sweep import WeightMethod
from edgeft.quantize.weight_only import WeightOnlyMethod, quantize_weights_only

Judge: TypeAlias = Callable[[onnx.ModelProto], Judged]
"""A graph -> what it is worth; its `validation` has `holds_margin` where there are labels."""

Climb: TypeAlias = Literal["never", "until it holds", "always"]

Method: TypeAlias = StaticMethod | DynamicMethod | WeightOnlyMethod | HalfMethod

_QAT_STEPS, _QAT_RATE, _QAT_SCALE_RATE = 120, 0.02, 1e-3
_ROUGH_IMAGES = 8
"""Calibration inputs of a graph that is only timed."""
CLOSED_FORM, QAT, DYNAMIC, WEIGHT_ONLY, HALF = "closed_form", "qat", "dynamic", "weight_only", "half"


class Images(Protocol):
    """Inputs of a graph that are read when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, chosen: NDArray[np.int64], /) -> Pixels:
        """Return those at the positions `chosen`, [n, ...]."""
        ...


@dataclass(frozen=True, slots=True)
class Ladder:
    """How the candidate beside fp32 is made.

    Args:
        placement: of the target.
        method: how the first rung is made.
        calibration: inputs that set ranges and round weights.
        training: what `qat` trains on, [N, ...] in the type that the graph takes; None where nothing is trained.
        climb: when `qat` follows: "never", "until it holds" (only where the margin was not held) or "always".
        seed: of the order of training.
        output: the tensor that training makes follow float's.
        memo: folder where calibration statistics are kept by content; None keeps none.
        device: what measures which segments are faster in float; None leaves nothing in float for speed.
    """

    placement: Placement
    method: Method
    calibration: Rows
    training: Images | None = None
    climb: Climb = "never"
    seed: int = 0
    output: str = LOGITS
    memo: Path | None = None
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Rung:
    """One graph on the way.

    Args:
        name: of the rung, see above.
        label: what was done.
        judged: the Q/DQ graph and what it is worth.
        seconds: making it took, without judging.
        skips: operators left in float.
        unsafe_pairs: of its weights.
        notes: what a reader must know.
    """

    name: str
    label: str
    judged: Judged
    seconds: float
    skips: tuple[Skip, ...]
    unsafe_pairs: int
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it holds the margin, or nothing was there to judge it by."""
        return bool(self.judged.validation.get("holds_margin", True))

    def to_json(self) -> dict[str, Json]:
        """Return the rung without its graph and its time: equal inputs give equal bytes."""
        return {"rung": self.name, "method": self.label, "validation": dict(self.judged.validation)}


def method_for(graph: onnx.ModelProto, precision: str, name: str, images: int) -> Method:
    """Return what `compress.precision` and `compress.method` stand for.

    Args:
        graph: the float graph; `auto` is dynamic where it is a transformer, else static.
        precision: int8, int4 or fp16.
        name: of an int8 method: auto, dynamic, weight_only, or a static method.
        images: how many calibration inputs round weights; 0 corrects no bias.

    Raises:
        QuantizationError: there is no such method.
    """
    if precision == "fp16":
        return HalfMethod(images or FEWEST_MOMENT_IMAGES)
    if precision == "int4" or name == "weight_only":
        return WeightOnlyMethod(4 if precision == "int4" else 8, images or FEWEST_MOMENT_IMAGES)
    if name == "dynamic" or (name == "auto" and prefers_dynamic(graph)):
        return DynamicMethod(images or FEWEST_MOMENT_IMAGES)
    return static_method(name, images)


def climb_rule(method: str) -> Climb:
    """Return when `qat` follows, for a `compress.method`."""
    return "always" if method == "qat" else "never"


def climb(
    graph: onnx.ModelProto, ladder: Ladder, judge: Judge, *, execution: Execution, emit: EventSink = ignore
) -> tuple[Rung, ...]:
    """Return the rungs that were climbed, in order.

    Args:
        graph: a float graph with one input.
        ladder: how.
        judge: what a graph is worth.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the graph cannot be quantized; or training is asked for and the graph cannot be trained, or
            torch is not installed.
    """
    if not isinstance(ladder.method, StaticMethod):
        if ladder.device is not None:
            raise QuantizationError(
                f"search leaves segments of a statically quantized graph in float; this one is {ladder.method.label}",
                hint="use a static method, e.g. --method gptq (in a recipe: compress.method)",
            )
        return (_one_rung(graph, ladder, ladder.method, judge, execution, emit),)
    first = _closed_form(graph, ladder, ladder.method, judge, execution, emit)
    if ladder.climb == "never" or (ladder.climb == "until it holds" and first.holds):
        return (first,)
    try:
        return (first, _trained(graph, first, ladder, judge, execution, emit))
    except EdgeftError as error:
        if ladder.climb == "always":
            raise
        missed = f"the margin is not held, and quantization-aware training was not possible: {error}"
        return (dataclasses.replace(first, notes=(*first.notes, missed)),)


def best(rungs: Sequence[Rung]) -> Rung:
    """Return the rung nearest to float, among those that hold the margin where any does."""
    pool = [rung for rung in rungs if rung.holds] or rungs
    return min(pool, key=lambda rung: float(str(rung.judged.validation["mean_abs_logit_error"])))


def _closed_form(
    graph: onnx.ModelProto, ladder: Ladder, method: StaticMethod, judge: Judge, execution: Execution, emit: EventSink
) -> Rung:
    started = time.perf_counter()
    pixels = _one_input(ladder.calibration)
    mixed = () if ladder.device is None else (_search(graph, ladder, ladder.device, pixels, execution, emit),)
    method = dataclasses.replace(method, keep_float=mixed[0].keep_float) if mixed else method
    made = quantize_static(graph, ladder.placement, pixels, method, execution=execution, emit=emit, memo=ladder.memo)
    seconds = time.perf_counter() - started
    notes = tuple(f"{layer} has no bias, so its mean output is not corrected" for layer in made.uncorrected)
    notes += tuple(found.note for found in mixed)
    judged = judge(made.model)
    return Rung(CLOSED_FORM, method.label, judged, seconds, made.skips, made.unsafe_pairs, notes)


def _ends(graph: onnx.ModelProto, placement: Placement, output: str) -> tuple[str, ...]:
    """Return the tensor behind each segment of `graph` before `output`: what training makes follow float's, too."""
    chain = segment_chain(graph, placement)
    before = itertools.takewhile(lambda segment: output not in segment.tensors, chain)
    return tuple(segment.tensors[-1] for segment in before)


def _search(
    graph: onnx.ModelProto, ladder: Ladder, device: Device, pixels: Pixels, execution: Execution, emit: EventSink
) -> Found:
    """Return which operators to leave in float; graphs are raced with roughly chosen integers, which take as long."""
    rough = StaticMethod("minmax", WeightMethod(search=False, follow_float=False, gptq=False, correct_bias=False), 1)

    def build(keep_float: Mapping[str, str]) -> onnx.ModelProto:
        method = dataclasses.replace(rough, keep_float=keep_float)
        return quantize_static(graph, ladder.placement, pixels[:_ROUGH_IMAGES], method, execution=execution).model

    return search(graph, build({}), ladder.placement, build, device, emit=emit)


def _one_input(rows: Rows) -> Pixels:
    """Return the array [N, ...] of the one input that `rows` hold.

    Raises:
        QuantizationError: there are several.
    """
    feeds = rows[: len(rows)]
    if len(feeds) != 1:
        raise QuantizationError(
            f"the graph has {len(feeds)} inputs ({', '.join(feeds)}); static int8 is for graphs with one",
            hint="use --method dynamic (in a recipe: compress.method)",
        )
    (values,) = feeds.values()
    return np.asarray(values)


def _one_rung(
    graph: onnx.ModelProto,
    ladder: Ladder,
    method: DynamicMethod | WeightOnlyMethod | HalfMethod,
    judge: Judge,
    execution: Execution,
    emit: EventSink,
) -> Rung:
    started = time.perf_counter()
    rows, unsafe = ladder.calibration, 0
    match method:
        case DynamicMethod():
            name = DYNAMIC
            made = quantize_dynamic(graph, ladder.placement, rows, method, execution=execution, emit=emit)
            model, skips, unsafe = made.model, made.skips, made.unsafe_pairs
        case WeightOnlyMethod():
            name = WEIGHT_ONLY
            model, skips = quantize_weights_only(graph, ladder.placement, rows, method, execution=execution, emit=emit)
        case HalfMethod():
            name = HALF
            model, skips = to_half(graph, rows, method, execution=execution, emit=emit)
    seconds = time.perf_counter() - started
    return Rung(name, method.label, judge(model), seconds, skips, unsafe)


def _trained(
    graph: onnx.ModelProto, start: Rung, ladder: Ladder, judge: Judge, execution: Execution, emit: EventSink
) -> Rung:
    """Return `start` after training."""
    if importlib.util.find_spec("torch") is None:
        raise QuantizationError("torch is not installed", hint="pip install 'edgeft[train]'")
    from edgeft.quantize.qat import QatMethod, tune

    started = time.perf_counter()
    if ladder.training is None:
        raise QuantizationError("training needs images, found none")
    method = QatMethod(
        steps=_QAT_STEPS,
        rate=_QAT_RATE,
        scale_rate=_QAT_SCALE_RATE,
        tensors=(ladder.output, *_ends(graph, ladder.placement, ladder.output)),
        threads=execution.threads,
    )
    rng = np.random.default_rng(ladder.seed)
    tuned = tune(start.judged.model, graph, ladder.placement, ladder.training, method, rng=rng, emit=emit)
    seconds = time.perf_counter() - started
    label = f"{start.label}+qat_{method.steps}x{method.batch}"
    return Rung(QAT, label, judge(tuned.model), seconds, start.skips, tuned.unsafe_pairs, start.notes)
