"""float16 for what a Q/DQ graph leaves in float: weights, biases, scales and every tensor between them.

    x float16 -> Q(scale float16) -> int8 -> DQ(scale float16) -> Conv, bias float16 -> float16

TensorRT's parser gives a DequantizeLinear's output the type of its scale, and wants a QuantizeLinear's scale in the
type of its input (opset 19 and later). So a DQ takes the type of what reads it, a Q that of what it reads. A scale is
rounded to float16 once and is the same number in Q and DQ, whatever their types. Operators of float32.py stay as they
are, with Casts where the types meet. Inputs and outputs of the graph keep their types.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeft.core.errors import EdgeftError
from edgeft.graph.passes.report import PassReport, Refusal
from edgeft.quantize.plan import constant
from edgeft_exporters.tensorrt.float32 import PAIR, Stay, stay_float32

OPSET = 19
"""The first in which Q and DQ take float16."""
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def half_(model: ir.Model) -> PassReport:
    """Make the float operators of the main graph float16; `refused` are those that stay float32, with the reason.

    Args:
        model: a Q/DQ graph of opset 19 or later whose tensors' types are known; changed in place.

    Raises:
        EdgeftError: the opset is below 19, or a tensor's type is not known.
    """
    version = model.graph.opset_imports.get("", 0)
    if version < OPSET:
        raise EdgeftError(f"opset {version} has no float16 scales", hint=f"export at opset {OPSET} or later")
    unknown = [value.name for node in model.graph for value in node.outputs if value.name and value.dtype is None]
    if unknown:
        raise EdgeftError(
            f"the type of {unknown[0]!r} is not known", hint="check the model with onnx's shape inference"
        )
    stays = stay_float32(model)
    pen = _Pen(model)
    changed = tuple(
        str(node.name or node.outputs[0].name) for node in tuple(model.graph) if _convert_(node, stays, pen)
    )
    RemoveUnusedNodesPass()(model)
    refused = tuple(Refusal(str(node.name or node.outputs[0].name), stay.reason) for node, stay in stays.items())
    return PassReport("half", changed, refused)


@dataclass(slots=True)
class _Pen:
    """Writes constants and Casts into `model`, each once."""

    model: ir.Model
    made: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def typed(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return the float `value` as `dtype`: itself, a constant, or the output of a Cast."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self.made:
            array = constant(value)
            self.made[value, dtype] = self._cast(value, dtype) if array is None else self.number(value, array, dtype)
        return self.made[value, dtype]

    def number(self, value: ir.Value, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        """Return `array` as an initializer named after `value`."""
        name = f"{value.name}::{dtype.name.lower()}"
        tensor = ir.tensor(array.astype(dtype.numpy()), name=name)
        made = ir.Value(name=name, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(array.shape))
        self.model.graph.register_initializer(made)
        return made

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = f"{value.name}::{dtype.name.lower()}"
        node = ir.node("Cast", [value], {"to": dtype}, name=name)
        made, maker = node.outputs[0], value.producer()
        made.name, made.shape, made.type = name, value.shape, ir.TensorType(dtype)
        if maker is None:
            self.model.graph.insert_before(self.model.graph[0], [node])
        else:
            self.model.graph.insert_after(maker, [node])
        return made


def _convert_(node: ir.Node, stays: dict[ir.Node, Stay], pen: _Pen) -> bool:
    """Give `node` its type; return whether anything changed. What it reads has its type already."""
    before = [(value, None if value is None else value.dtype) for value in node.inputs]
    if node.op_type in PAIR:
        _convert_pair_(node, stays, pen)
    elif node.op_type not in {"Cast", "Constant"}:
        dtype = _FLOAT if node in stays else _HALF
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in {_FLOAT, _HALF}:
                node.replace_input_with(index, pen.typed(value, dtype))
        for value in node.outputs:
            if value.dtype == _FLOAT and dtype == _HALF:
                value.type = ir.TensorType(_HALF)
    return [(value, None if value is None else value.dtype) for value in node.inputs] != before


def _convert_pair_(node: ir.Node, stays: dict[ir.Node, Stay], pen: _Pen) -> None:
    x, scale = node.inputs[0], node.inputs[1]
    numbers = constant(scale)
    if x is None or scale is None or numbers is None or scale.dtype not in {_FLOAT, _HALF}:
        return
    if node.op_type == "QuantizeLinear":
        if node in stays:
            node.replace_input_with(0, pen.typed(x, _FLOAT))
            return
        dtype = x.dtype
    else:
        readers = node.outputs[0].consumers()
        dtype = _FLOAT if node in stays or all(reader in stays for reader in readers) else _HALF
    on_weight = constant(x) is not None
    if dtype == _HALF:
        node.replace_input_with(1, pen.typed(scale, _HALF))
    elif node not in stays and not on_weight:
        node.replace_input_with(1, _rounded(scale, numbers, pen))
    if node.op_type == "DequantizeLinear":
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT if dtype == _FLOAT else _HALF)


def _rounded(scale: ir.Value, numbers: np.ndarray, pen: _Pen) -> ir.Value:
    """Return the float32 `scale` as numbers that float16 holds: what the other half of the pair has."""
    rounded = numbers.astype(np.float16).astype(np.float32)
    if (rounded == numbers).all():
        return scale
    key = (scale, _FLOAT)
    if key not in pen.made:
        pen.made[key] = pen.number(scale, rounded, _FLOAT)
    return pen.made[key]
