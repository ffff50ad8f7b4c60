"""fp16: weights and arithmetic in half precision, 11 bits of mantissa and at most 65504; half the size.

A CPU without half-precision kernels computes such a file in float32: accuracy and latency measured there tell about
the size of the file and its rounded weights only. So what would overflow on a device that does compute in half
precision is found by range, on calibration data, and stays float32.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from edgeft.core.events import EventSink, ignore
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.plan import Skip
from edgeft.quantize.rows import First, Rows, tensors_of

LARGEST = 65504.0
_HEADROOM = 2.0
"""Calibration data has not seen the largest value of all."""
_STAYS = ("DequantizeLinear", "QuantizeLinear")


@dataclass(frozen=True, slots=True)
class HalfMethod:
    """fp16 has nothing to choose but how many inputs are looked at for overflow.

    Args:
        images: calibration inputs that are run.
    """

    images: int

    @property
    def label(self) -> str:
        """What was done."""
        return self.precision

    @property
    def precision(self) -> str:
        """What the candidate is called."""
        return "fp16"


def to_half(
    float_model: onnx.ModelProto, rows: Rows, method: HalfMethod, *, execution: Execution, emit: EventSink = ignore
) -> tuple[onnx.ModelProto, tuple[Skip, ...]]:
    """Return `float_model` in fp16 with its inputs and outputs as they were, and the operators that stay float32.

    Args:
        float_model: a float graph; left as it is.
        rows: calibration inputs; the first `method.images` are run.
        method: how.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: there are no inputs, an activation is NaN, or an output is an input or a weight.
    """
    given = {value.name for values in (float_model.graph.input, float_model.graph.initializer) for value in values}
    if passed := [value.name for value in float_model.graph.output if value.name in given]:
        raise QuantizationError(
            f"output {passed[0]!r} is an input or a weight of the graph itself, which fp16 would not hand on",
            hint="leave that output out, or use int8",
        )
    large = _large(float_model, First(rows, method.images), execution, emit)
    weights = {
        tensor.name: _largest(numpy_helper.to_array(tensor))
        for tensor in float_model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    skips = []
    named = onnx.ModelProto()
    named.CopyFrom(float_model)
    for index, node in enumerate(named.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        over = {name: large[name] for name in (*node.input, *node.output) if name in large}
        over |= {name: weights[name] for name in node.input if weights.get(name, 0) > LARGEST}
        if over and node.op_type not in _STAYS:
            tensor, value = max(over.items(), key=lambda item: item[1])
            reason = f"{tensor!r} reaches {value:.3g} on calibration data, near fp16's largest number 65504"
            skips.append(Skip(node.name, reason))
    made = convert_float_to_float16(
        named,
        keep_io_types=True,
        node_block_list=[skip.layer for skip in skips],
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Celu", *_STAYS],
        disable_shape_infer=False,
    )
    model = ir.from_proto(made)
    _join_casts_(model)
    _keep_scales_(model, float_model)
    RemoveUnusedNodesPass()(model)
    TopologicalSortPass()(model)  # the converter appends its Casts
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]  # the converter leaves float16 written beside tensors that stay float32
    proto = onnx.shape_inference.infer_shapes(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto, tuple(skips)


def _join_casts_(model: ir.Model) -> None:
    """Let operators that stay float32 hand float32 to each other: the converter goes through fp16 and back."""
    for node in model.graph:
        back = node.inputs[0].producer() if node.op_type == "Cast" and node.inputs[0] is not None else None
        if back is None or back.op_type != "Cast" or back.inputs[0] is None:
            continue
        kinds = [each.attributes.get_int("to", 0) for each in (back, node)]
        if kinds == [ir.DataType.FLOAT16, ir.DataType.FLOAT]:
            node.replace_input_with(0, back.inputs[0])


def _keep_scales_(model: ir.Model, float_model: onnx.ModelProto) -> None:
    """Give Q and DQ, which stay float32, their scales back: the converter rounds them to fp16 and casts them back."""
    given = {tensor.name: tensor for tensor in float_model.graph.initializer}
    for node in model.graph:
        maker = node.inputs[1].producer() if node.op_type in _STAYS and node.inputs[1] is not None else None
        source = maker.inputs[0] if maker is not None and maker.op_type == "Cast" else None
        if source is None or source.name not in given:
            continue
        name = f"{source.name}::float32"
        array = numpy_helper.to_array(given[source.name])
        tensor = ir.tensor(array, name=name)
        held = ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape)
        )
        model.graph.register_initializer(held)
        node.replace_input_with(1, held)


def _large(model: onnx.ModelProto, rows: Rows, execution: Execution, emit: EventSink) -> dict[str, float]:
    """Return the largest magnitude of each float tensor that comes near fp16's largest.

    Raises:
        QuantizationError: there are no inputs, or a tensor holds NaN.
    """
    tensors = [name for node in model.graph.node for name in node.output if name]
    found = dict.fromkeys(tensors, 0.0)
    for batch in tensors_of(model, tensors, rows, execution, emit):
        for name, values in zip(tensors, batch, strict=True):
            if values.dtype != np.float32:
                continue
            if np.isnan(values).any():
                raise QuantizationError(f"activation {name!r} holds NaN", hint="check the calibration data")
            found[name] = max(found[name], _largest(values))
    return {name: value for name, value in found.items() if value * _HEADROOM > LARGEST}


def _largest(values: Floats) -> float:
    """Return the largest finite magnitude: an infinity is the same number in half precision, as in masks."""
    return float(np.abs(values).max(initial=0, where=np.isfinite(values)))
