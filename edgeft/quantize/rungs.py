"""The rungs of the ladder: each makes one graph, has it judged, and tells what it did."""

import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import onnx

from edgeft.core.events import EventSink
from edgeft.core.stage import Json
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import LOGITS, Judged
from edgeft.quantize.dynamic import DynamicMethod, quantize_dynamic
from edgeft.quantize.half import HalfMethod, to_half
from edgeft.quantize.one_input import Calibration, OneInput
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import Skip
from edgeft.quantize.rows import Images, Rows
from edgeft.quantize.search import Device, Found, search, segment_chain
from edgeft.quantize.static import StaticMethod, quantize_static
from edgeft.quantize.sweep import WeightMethod
from edgeft.quantize.weight_only import WeightOnlyMethod, quantize_weights_only

if TYPE_CHECKING:
    from edgeft.quantize.heal import Healed

Judge: TypeAlias = Callable[[onnx.ModelProto], Judged]
"""A graph -> what it is worth; its `validation` has `holds_margin` where there are labels."""

Climb: TypeAlias = Literal["never", "until it holds", "always"]

Method: TypeAlias = StaticMethod | DynamicMethod | WeightOnlyMethod | HalfMethod

_QAT_STEPS, _QAT_BATCH, _QAT_RATE, _QAT_SCALE_RATE = 120, 16, 0.05, 1e-4
_HEAL_STEPS, _HEAL_BATCH, _HEAL_RATE = 400, 32, 0.02
_ROUGH_WEIGHTS = WeightMethod(search=False, follow_float=False, gptq=False, correct_bias=False)
_ROUGH_IMAGES = 8
"""Calibration inputs of a graph that is only timed."""
_SPARE_MORE = 0.35
"""Share of the integer multiplications that may be in float where the margin is not held otherwise."""
_NAMED = 3
"""Operators named in a note."""
CLOSED_FORM, PARTIAL_FLOAT, QAT = "closed_form", "partial_float", "qat"
DYNAMIC, WEIGHT_ONLY, HALF = "dynamic", "weight_only", "half"


@dataclass(frozen=True, slots=True)
class Ladder:
    """How the candidate beside fp32 is made.

    Args:
        placement: of the target.
        method: how the first rung is made.
        calibration: inputs that set ranges and round weights.
        training: what `qat` trains on, [N, ...] in the type that the graph takes; None where nothing is trained.
        answers: what `qat` makes `output` follow on them, in place of what float says, float32 [N, K]; None: float.
        climb: what follows the first rung: "never" anything; "until it holds" segments in float, then `qat`, while the
            margin is not held; "always" `qat`.
        seed: of the order of training.
        output: the tensor that training makes follow float's.
        memo: folder where calibration statistics are kept by content; None keeps none.
        device: what measures which segments are faster in float; None leaves nothing in float for speed.
        swap: whether HardSwish and SiLU become Relu first, healed by training.
    """

    placement: Placement
    method: Method
    calibration: Rows
    training: Images | None = None
    climb: Climb = "never"
    seed: int = 0
    answers: Floats | None = None
    output: str = LOGITS
    memo: Path | None = None
    device: Device | None = None
    swap: bool = False


@dataclass(frozen=True, slots=True)
class Rung:
    """One graph on the way.

    Args:
        name: of the rung, see above.
        label: what was done.
        judged: the Q/DQ graph and what it is worth.
        seconds: making it took, without judging.
        skips: operators left in float.
        unsafe_pairs: of its weights; None where none multiplies integers.
        notes: what a reader must know.
        method: of a statically quantized rung.
        reference: the float graph that it follows tensor by tensor; None where that is not known.
        taught: whether its output follows answers that are not the float graph's.
    """

    name: str
    label: str
    judged: Judged
    seconds: float
    skips: tuple[Skip, ...]
    unsafe_pairs: int | None
    notes: tuple[str, ...] = ()
    method: StaticMethod | None = None
    reference: onnx.ModelProto | None = None
    taught: bool = False

    @property
    def holds(self) -> bool:
        """Whether it holds the margin, or nothing was there to judge it by."""
        return bool(self.judged.validation.get("holds_margin", True))

    def to_json(self) -> dict[str, Json]:
        """Return the rung without its graph and its time: equal inputs give equal bytes."""
        return {"rung": self.name, "method": self.label, "validation": dict(self.judged.validation)}


def closed_form(
    graph: onnx.ModelProto, ladder: Ladder, method: StaticMethod, judge: Judge, execution: Execution, emit: EventSink
) -> Rung:
    """Return the statically quantized graph; where there is a device, with float where that is faster."""
    started = time.perf_counter()
    pixels = OneInput(ladder.calibration)
    found = None
    if ladder.device is not None:
        spared = _spared(graph, ladder, method, pixels, execution, emit)
        found = _search(graph, ladder, ladder.device, pixels, spared, execution, emit)
        method = dataclasses.replace(method, keep_float={**spared, **found.keep_float}, spare=0.0)
    made = quantize_static(graph, ladder.placement, pixels, method, execution=execution, emit=emit, memo=ladder.memo)
    seconds = time.perf_counter() - started
    notes = _uncorrected(made.uncorrected)
    notes += () if found is None else (found.note,)
    return Rung(
        CLOSED_FORM,
        made.label,
        judge(made.model),
        seconds,
        made.skips,
        made.unsafe_pairs,
        notes,
        method,
        made.reference,
    )


def _uncorrected(layers: tuple[str, ...]) -> tuple[str, ...]:
    if not layers:
        return ()
    named = ", ".join(layers[:_NAMED]) + (f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else "")
    return (f"no bias, so mean outputs are not corrected: {named}",)


def partial_float(
    graph: onnx.ModelProto, first: Rung, ladder: Ladder, judge: Judge, execution: Execution, emit: EventSink
) -> Rung:
    """Return `first`, a closed form, with more segments in float around the tensors that suffer most.

    Raises:
        QuantizationError: no tensor can be spared, or nothing worth quantizing would be left.
    """
    started = time.perf_counter()
    if first.method is None:
        raise QuantizationError(f"{first.label} was not made by a static method")
    pixels = OneInput(ladder.calibration)
    method = dataclasses.replace(first.method, spare=_SPARE_MORE)
    made = quantize_static(graph, ladder.placement, pixels, method, execution=execution, emit=emit, memo=ladder.memo)
    seconds = time.perf_counter() - started
    if made.skips == first.skips:
        raise QuantizationError(f"no tensor can be spared within {_SPARE_MORE:.0%} of the multiplications")
    label = f"{made.label}_more"
    return Rung(
        PARTIAL_FLOAT,
        label,
        judge(made.model),
        seconds,
        made.skips,
        made.unsafe_pairs,
        first.notes,
        method,
        made.reference,
    )


def one_step(
    graph: onnx.ModelProto,
    ladder: Ladder,
    method: DynamicMethod | WeightOnlyMethod | HalfMethod,
    judge: Judge,
    execution: Execution,
    emit: EventSink,
) -> Rung:
    """Return the graph of a method that has no rung after it."""
    started = time.perf_counter()
    rows = ladder.calibration
    unsafe: int | None = None
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


def swapped(graph: onnx.ModelProto, ladder: Ladder, execution: Execution, emit: EventSink) -> "Healed":
    """Return `graph` with Relu for HardSwish and SiLU, trained to follow `graph`.

    Raises:
        EdgeftError: torch or images are missing, nothing can be swapped, or the graph cannot be trained.
    """
    _require_torch()
    OneInput(ladder.calibration)  # or it says that there are several
    from edgeft.quantize.follow import Lessons
    from edgeft.quantize.heal import heal

    lessons = Lessons(
        _training_images(ladder),
        np.random.default_rng(ladder.seed),
        _HEAL_STEPS,
        _training_batch(graph, _HEAL_BATCH),
        (ladder.output, *_ends(graph, ladder.placement, ladder.output)),
        threads=execution.threads,
    )
    return heal(graph, lessons, _HEAL_RATE, emit=emit)


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise QuantizationError("torch is not installed", hint="pip install 'edgeft[train]'")


def _training_batch(graph: onnx.ModelProto, wanted: int) -> int:
    """Return how many images a step takes: as many as the graph does, where it takes just so many."""
    return graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or wanted


def _training_images(ladder: Ladder) -> Images:
    if ladder.training is None:
        raise QuantizationError("training needs images, found none")
    return ladder.training


def trained(
    graph: onnx.ModelProto, start: Rung, ladder: Ladder, judge: Judge, execution: Execution, emit: EventSink
) -> Rung:
    """Return `start` after training.

    Raises:
        EdgeftError: torch or images are missing, or the graph cannot be trained.
    """
    _require_torch()
    from edgeft.quantize.qat import QatMethod, tune

    started = time.perf_counter()
    images = _training_images(ladder)
    method = QatMethod(
        steps=_QAT_STEPS,
        batch=_training_batch(graph, _QAT_BATCH),
        rate=_QAT_RATE,
        scale_rate=_QAT_SCALE_RATE,
        tensors=(ladder.output, *_ends(graph, ladder.placement, ladder.output)),
        answers=ladder.answers,
        threads=execution.threads,
    )
    rng = np.random.default_rng(ladder.seed)
    tuned = tune(start.judged.model, start.reference or graph, ladder.placement, images, method, rng=rng, emit=emit)
    seconds = time.perf_counter() - started
    taught = ladder.answers is not None
    label = f"{start.label}+qat_{method.steps}x{method.batch}" + ("_teacher" if taught else "")
    return Rung(QAT, label, judge(tuned.model), seconds, start.skips, tuned.unsafe_pairs, start.notes, taught=taught)


def _ends(graph: onnx.ModelProto, placement: Placement, output: str) -> tuple[str, ...]:
    """Return the tensor behind each segment of `graph` before `output`: what training makes follow float's, too."""
    chain = segment_chain(graph, placement)
    before = itertools.takewhile(lambda segment: output not in segment.tensors, chain)
    return tuple(segment.tensors[-1] for segment in before)


def _spared(
    graph: onnx.ModelProto,
    ladder: Ladder,
    method: StaticMethod,
    pixels: Calibration,
    execution: Execution,
    emit: EventSink,
) -> Mapping[str, str]:
    """Return which operators `method` leaves in float to spare tensors: what is searched must hold them, too."""
    if not method.spare:
        return {}
    rough = dataclasses.replace(method, weights=_ROUGH_WEIGHTS)
    made = quantize_static(graph, ladder.placement, pixels, rough, execution=execution, emit=emit, memo=ladder.memo)
    return made.spared


def _search(
    graph: onnx.ModelProto,
    ladder: Ladder,
    device: Device,
    pixels: Calibration,
    spared: Mapping[str, str],
    execution: Execution,
    emit: EventSink,
) -> Found:
    """Return which operators to leave in float beside those `spared`; integers are rough, and take as long."""
    rough = StaticMethod("minmax", _ROUGH_WEIGHTS, 1)

    def build(keep_float: Mapping[str, str]) -> onnx.ModelProto:
        method = dataclasses.replace(rough, keep_float={**spared, **keep_float})
        return quantize_static(graph, ladder.placement, pixels[:_ROUGH_IMAGES], method, execution=execution).model

    return search(graph, build({}), ladder.placement, build, device, emit=emit)
