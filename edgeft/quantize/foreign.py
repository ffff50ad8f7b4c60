"""A user's ONNX file as a graph to quantize: a known opset, known sizes where they can be known, simplified.

What comes out is proven to compute what the file computes, on the user's own data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.helper import (
    find_min_ir_version_for,
    make_tensor_value_info,
    np_dtype_to_tensor_dtype,
    tensor_dtype_to_np_dtype,
)
from onnx_ir.passes.common import NameFixPass

from edgeft.core.errors import DataError
from edgeft.data.samples import Feeds, InputSpec, Samples
from edgeft.graph.execute import open_session
from edgeft.graph.load import load
from edgeft.graph.opset import DEFAULT_DOMAINS, opset_of, to_common_opset
from edgeft.graph.simplify import dynamic_tensors, simplify_
from edgeft.graph.taps import with_outputs
from edgeft.quantize.candidates import LOGITS
from edgeft.quantize.plan import refuse_quantized

_CHECKED = 8
_NO_TENSORS = ("Sequence", "SplitToSequence", "Optional", "StringSplit")
"""How operators begin that make sequences, or strings in an array of their own kind."""
_TOLERANCE = 1e-3
"""Largest accepted difference from the file given, relative to the largest output (at least 1): rounding of folded
BatchNorms and reordered sums stays far below, a wrong conversion far above."""
_MATRIX_RANK = 2


@dataclass(frozen=True, slots=True)
class Foreign:
    """A float model as it was given.

    Args:
        path: the file.
        model: the file's content, all weights in memory.
        opset: of the default domain.
        inputs: what it takes.
        fixed_batch: whether the model takes one input at a time.
    """

    path: Path
    model: onnx.ModelProto
    opset: int
    inputs: tuple[InputSpec, ...]
    fixed_batch: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph that can be quantized.

    Args:
        model: simplified, opset 18 to 23.
        opset: of `model`.
        tensor: what candidates are compared on: `logits`, the input of a last Softmax, or else the first output.
        outputs: K where `tensor` is [N, K], else None.
        operators: before and after simplification.
        max_abs_error: largest difference of `tensor`, or else of the first output, from the file, on `checked` inputs.
        checked: how many inputs were compared.
        notes: what a reader must know.
    """

    model: onnx.ModelProto
    opset: int
    tensor: str
    outputs: int | None
    operators: tuple[int, int]
    max_abs_error: float
    checked: int
    notes: tuple[str, ...]


def read_model(path: Path, sizes: tuple[int, ...] | None = None) -> Foreign:
    """Read the float model at `path`; external data beside it is read under guard.

    Args:
        path: an .onnx file.
        sizes: of its one input after the batch axis, for axes that the model leaves open.

    Raises:
        DataError: it is no valid ONNX model of at most 2 GB, contradicts `sizes`, is already quantized, has no input,
            inputs whose batch differs, or a fixed batch above 1.
    """
    model = load(path, external_data=True)
    _session(model, path)  # what it takes is valid; onnx's checker is stricter than most exporters
    refuse_quantized(ir.from_proto(model).graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise DataError(f"{path}: the model has no inputs", hint="export it again, with its inputs")
    if sizes is not None and len(inputs) > 1:
        names = ", ".join(value.name for value in inputs)
        raise DataError(f"{path}: --input-shape is for one input, the model has {len(inputs)} ({names})")
    specs, batches = zip(*(_spec(path, value, sizes) for value in inputs), strict=True)
    for value, batch in zip(inputs, batches, strict=True):
        if batch not in {None, 1} or batch != batches[0]:
            first, own = (f"of exactly {size}" if size else "of any size" for size in (batches[0], batch))
            beside = f", {inputs[0].name!r} {first}" if batch != batches[0] else ""
            raise DataError(
                f"{path}: input {value.name!r} takes batches {own}{beside}",
                hint="export it with a dynamic batch, or a batch of 1, for all inputs alike",
            )
    return Foreign(path, model, opset_of(model), tuple(specs), batches[0] == 1)


def prepare(foreign: Foreign, samples: Samples) -> Prepared:
    """Return `foreign` at a common opset, simplified and compared with what it was.

    A model with one input takes the sizes of `samples`; one with several keeps open what it leaves open (the length of
    a text).

    Raises:
        DataError: the opset is out of range, an operator cannot be converted, onnxruntime cannot run the model, its
            output is not float32, or the graph computes something else than the file, or than itself one by one.
    """
    given = _with_sizes(foreign.model, samples.sizes if len(foreign.inputs) == 1 else {})
    given.graph.name = given.graph.name or "graph"  # onnx's checker asks for one
    _give_ranks_(given, foreign, samples[:1])
    converted = to_common_opset(given, str(foreign.path))
    model = ir.from_proto(converted)
    before = sum(1 for _ in model.graph)
    for name in [value.name for value in model.graph.inputs if value.name in model.graph.initializers]:
        model.graph.inputs.remove(next(value for value in model.graph.inputs if value.name == name))
    named = {node.name for node in converted.graph.node if node.name}
    simplify_(model)
    tensor = _compared_(model)
    _name_nodes_(model, given=named)
    NameFixPass()(model)
    proto = ir.to_proto(model)
    proto.ir_version = find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    _check(proto, foreign.path)
    output = tensor if tensor in {value.name for value in given.graph.output} else given.graph.output[0].name
    error = _difference(given, proto, output, samples, foreign)
    sizes = _first(_session(with_outputs(proto, [tensor]), foreign.path), tensor, samples[:1], foreign).shape
    notes = [f"{len(open_)} tensors have sizes open past the batch axis"] if (open_ := dynamic_tensors(model)) else []
    if len(proto.graph.output) > 1:
        notes.append(f"candidates are compared on {tensor!r}; the model has {len(proto.graph.output)} outputs")
    return Prepared(
        proto,
        opset_of(proto),
        tensor,
        sizes[1] if len(sizes) == _MATRIX_RANK else None,
        (before, len(proto.graph.node)),
        error,
        min(_CHECKED, len(samples)),
        tuple(notes),
    )


def _check(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what onnx's checker does not take, before anything is measured of it."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise DataError(
            f"{path}: onnx's checker refuses it: {' '.join(str(error).split())}",
            hint="export the model again, at opset 21 where an operator is deprecated",
        ) from error


def _spec(path: Path, value: onnx.ValueInfoProto, sizes: tuple[int, ...] | None) -> tuple[InputSpec, int | None]:
    """Return the input's facts, and its batch size where that is fixed."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape") or not tensor.shape.dim:
        raise DataError(f"{path}: input {value.name!r} declares no batch and sizes", hint="export it with a shape")
    batch, *declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    spec = InputSpec(value.name, str(tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(declared))
    if sizes is None:
        return spec, batch
    if len(sizes) != len(declared) or any(own not in {None, size} for own, size in zip(declared, sizes, strict=False)):
        raise DataError(
            f"{path}: --input-shape {','.join(map(str, sizes))} does not fit the input {spec}",
            hint="give the sizes after the batch axis",
        )
    return InputSpec(spec.name, spec.dtype, sizes), batch


def _with_sizes(model: onnx.ModelProto, sizes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return a copy whose inputs have `sizes` past the batch axis; inner shapes, which may be stale, are dropped."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim[1:], sizes.get(value.name, ()), strict=False):
            dim.dim_value = size
    return copy


def _give_ranks_(model: onnx.ModelProto, foreign: Foreign, row: Feeds) -> None:
    """Declare ranks that shape inference cannot know, as found by running `row`.

    These are outputs that declare no shape, what operators of other domains than ONNX's own make, and what comes behind
    these, behind branches and behind operators whose inference knows no rank.
    """
    open_ = [value for value in model.graph.output if not value.type.tensor_type.HasField("shape")]
    known = {*DEFAULT_DOMAINS, *(function.domain for function in model.functions)}
    outputs = {value.name for value in model.graph.output}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    ranked = {value.name for value in inferred if value.type.tensor_type.HasField("shape")}
    ranked |= {value.name for value in inferred if not value.type.HasField("tensor_type")}
    made = [
        name
        for node in model.graph.node
        if node.domain not in known or not node.op_type.startswith(_NO_TENSORS)
        for name in node.output
        if name
    ]
    inner = [name for name in made if name not in outputs and name not in ranked]
    session = _session(with_outputs(model, inner), foreign.path) if open_ or inner else None
    for value in open_:
        for _ in _first(session, value.name, row, foreign).shape:
            value.type.tensor_type.shape.dim.add()
    for name in inner:
        found = _first(session, name, row, foreign)
        kind = np_dtype_to_tensor_dtype(found.dtype)
        model.graph.value_info.append(make_tensor_value_info(name, kind, [None] * found.ndim))


def _name_nodes_(model: ir.Model, given: set[str]) -> None:
    """Name operators that the file does not name after their outputs: reports call them by something the file knows."""
    for node in model.graph:
        if node.name not in given:
            node.name = node.outputs[0].name


def _compared_(model: ir.Model) -> str:
    """Return the tensor that candidates are compared on; the input of a last Softmax is named `logits`."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    if LOGITS in values:
        return LOGITS
    output = model.graph.outputs[0]
    producer = output.producer()
    before = producer.inputs[0] if producer is not None and producer.op_type == "Softmax" else None
    taken = {*model.graph.initializers, *(value.name for value in model.graph.inputs)}
    if before is None or before.producer() is None or before.is_graph_output() or LOGITS in taken:
        return str(output.name)
    before.name = LOGITS
    return LOGITS


def _difference(
    given: onnx.ModelProto, prepared: onnx.ModelProto, output: str, samples: Samples, foreign: Foreign
) -> float:
    """Return the largest difference of `output` from the file's."""
    count = min(_CHECKED, len(samples))
    rows = [samples[index : index + 1] for index in range(count)]
    before, after = (_session(model, foreign.path) for model in (given, prepared))
    answers = [_first(before, output, row, foreign) for row in rows]
    alike = answers[0].ndim > 0 and all(each.shape == answers[0].shape for each in answers)
    expected = np.concatenate(answers) if alike else answers[0]
    if expected.dtype != np.float32 or expected.ndim < _MATRIX_RANK or len(expected) != count:
        raise DataError(
            f"{foreign.path}: output {output!r} is {expected.dtype} {list(expected.shape)} for {count} inputs; "
            "expected float32 [N, ...], a row for each",
            hint="export scores or features, not decisions",
        )
    single = np.concatenate([_first(after, output, row, foreign) for row in rows])
    whole = single if foreign.fixed_batch else _first(after, output, samples[:count], foreign)
    if not np.isfinite(expected).all():
        raise DataError(
            f"{foreign.path}: output {output!r} holds NaN or Inf on {samples.source}", hint="check the data"
        )
    limit = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for found, what in ((single, "after simplification"), (whole, "in batches")):
        error = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
        if not error <= limit:  # NaN fails
            raise DataError(
                f"{foreign.path}: {what} the graph's output {output!r} differs by {error:.2g} from the file's, where "
                f"rounding explains {limit:.2g}",
                hint="export the model with a batch of 1, or report it",
            )
    return float(max(np.abs(single - expected).max(), np.abs(whole - expected).max()))


def _session(model: onnx.ModelProto, path: Path) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    try:
        return open_session(model, 1)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise DataError(
            f"{path}: onnxruntime cannot load it: {' '.join(str(error).split())}", hint="check it with `edgeft inspect`"
        ) from error


def _first(session: Any, output: str, feeds: Feeds, foreign: Foreign) -> NDArray[Any]:  # noqa: ANN401 - onnxruntime ships no types
    try:
        return np.asarray(session.run([output], feeds)[0])
    except Exception as error:  # onnxruntime's exceptions share no public base
        shapes = ", ".join(str(list(values.shape)) for values in feeds.values())
        raise DataError(
            f"{foreign.path}: onnxruntime cannot run it on {shapes}: {' '.join(str(error).split())}",
            hint="check the sizes, or export the model with a batch of 1",
        ) from error
