"""Which operators become integer ones, where their Q/DQ pairs go, and why the others stay float.

A `Placement` says what the target can do; the plan says what this graph lets it do. An operator without weights is
taken only where all its inputs are integers anyway, and one that only moves values only where an integer operator
follows: elsewhere the pair would cost more than it saves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.placement import OpRule, OutputRule, Placement

_QUANTIZED_OPS = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm")
_CONV_RANK = 4
_MATRIX_RANK = 2
_PRODUCTS = ("Gemm", "MatMul")
_SILENT_OPS = ("Constant", "DequantizeLinear")


@dataclass(frozen=True, slots=True)
class Skip:
    """An operator left in float."""

    layer: str
    reason: str


@dataclass(frozen=True, slots=True)
class IntegerOp:
    """One operator of the float graph that becomes an integer one.

    Args:
        node: the operator.
        rule: what the target asks of it.
        inputs: the tensors that need a DQ.
        output: the tensor that gets the Q (after an absorbed Relu or Clip), or None where the output stays float.
        absorbed: the Relu or Clip that the Q makes redundant, or None.
    """

    node: ir.Node
    rule: OpRule
    inputs: tuple[ir.Value, ...]
    output: ir.Value | None
    absorbed: ir.Node | None

    @property
    def name(self) -> str:
        """The operator's name, or its first output's where it has none."""
        return self.node.name or str(self.node.outputs[0].name)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be quantized.

    Args:
        ops: integer operators in topological order.
        observed: tensors that get a Q with parameters of their own, in topological order.
        shared: tensor that only moves values -> the tensor whose parameters it takes.
        limits: observed tensor -> (min, max) of the Clip or Relu that its Q absorbs; its range must stay inside.
        skips: operators left in float.
    """

    ops: tuple[IntegerOp, ...]
    observed: tuple[str, ...]
    shared: Mapping[str, str]
    limits: Mapping[str, tuple[float, float]]
    skips: tuple[Skip, ...]

    @property
    def weighted(self) -> tuple[IntegerOp, ...]:
        """The operators that have weights."""
        return tuple(op for op in self.ops if op.rule.weight is not None)


def make_plan(model: ir.Model, placement: Placement, keep_float: Mapping[str, str] = MappingProxyType({})) -> Plan:
    """Return what `placement` makes of the float `model`.

    Args:
        model: a float graph.
        placement: of the target.
        keep_float: operators to leave in float, each with the reason.

    Raises:
        QuantizationError: the model is already quantized, or has nothing that the target takes in integers.
    """
    nodes = list(model.graph)
    refuse_quantized(nodes)
    integer = {value for node in nodes if node.op_type == "DequantizeLinear" for value in node.outputs}
    ops: list[IntegerOp] = []
    skips: list[Skip] = []
    for node in nodes:
        name = node.name or str(node.outputs[0].name)
        kept = keep_float.get(name)
        found = _examine(node, placement, integer) if kept is None else Skip(name, kept)
        if isinstance(found, IntegerOp):
            ops.append(found)
            if found.output is not None:
                integer.add(found.output)
        elif found is not None:
            skips.append(found)
    ops, lone = _drop_lone_shortcuts(ops)
    ops, useless = _drop_useless_moves(ops)
    absorbed = {str(op.absorbed.name) for op in ops if op.absorbed is not None}
    skips = [skip for skip in (*skips, *lone, *useless) if skip.layer not in absorbed]
    if not any(op.rule.weight is not None for op in ops):
        reasons = "; ".join(f"{skip.layer}: {skip.reason}" for skip in skips[:3]) or "it has no operators"
        raise QuantizationError(
            f"nothing in this graph can be quantized for {placement.target!r} ({reasons})",
            hint="ship it in float (in a recipe: compress.precision: fp32)",
        )
    return _with_tensors(ops, skips)


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer or Constant, or None where `value` is computed or absent."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def refuse_quantized(nodes: Iterable[ir.Node]) -> None:
    """Refuse a graph that holds integer operators or dequantized constants.

    Raises:
        QuantizationError: names the first such operator.
    """
    for node in nodes:
        constant_dq = node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None
        if node.op_type in _QUANTIZED_OPS or node.op_type.startswith("QLinear") or constant_dq:
            raise QuantizationError(
                f"the model is already quantized: it has {node.op_type} {node.name!r}",
                hint="give the float model that it was made from",
            )


def _examine(node: ir.Node, placement: Placement, integer: set[ir.Value]) -> IntegerOp | Skip | None:
    """Return the integer form of `node`, or why it has none; None for nodes that are not worth a word."""
    name = node.name or str(node.outputs[0].name)
    if node.op_type in _SILENT_OPS or _moves_integers(node):
        return None
    rule, foreign = _rule(node, placement), foreign_reason(node)
    if rule is None or foreign is not None:
        return Skip(name, foreign or placement.float_reason(node.op_type))
    inputs = _activations(node, rule)
    reason = _refusal(node, rule, inputs, integer) or _unwanted(node, rule, inputs, placement)
    if reason is not None:
        return Skip(name, reason)
    output, absorbed = _output(node, placement)
    if rule.output is OutputRule.FLOAT or output.name in placement.float_outputs:
        return IntegerOp(node, rule, inputs, None, None)
    if output.is_graph_output():
        return Skip(name, "its output is an output of the graph, which stays float")
    return IntegerOp(node, rule, inputs, output, absorbed)


def foreign_reason(node: ir.Node) -> str | None:
    """Return why `node`, of another domain than ONNX's own, stays float, whatever it is called; None for ONNX's own."""
    if node.domain in DEFAULT_DOMAINS:
        return None
    return f"{node.domain}.{node.op_type} is none of ONNX's own operators"


def _rule(node: ir.Node, placement: Placement) -> OpRule | None:
    """Return what the target asks of `node`; None where it runs in float."""
    branch = shortcut(node.inputs) if placement.quantizes_shortcuts and node.op_type == "Add" else None
    if branch is not None:
        return OpRule("Add", (branch,), OutputRule.FLOAT)
    return placement.gate(node.op_type) or placement.rule(node.op_type)


def _moves_integers(node: ir.Node) -> bool:
    """Return whether `node` already works on integers, such as the Transpose of uint8 pixels."""
    dtype = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    return dtype is not None and dtype.is_integer()


def _activations(node: ir.Node, rule: OpRule) -> tuple[ir.Value, ...]:
    indices = rule.activations or tuple(range(len(node.inputs)))
    chosen = [node.inputs[i] for i in indices if i < len(node.inputs)]
    return tuple(value for value in chosen if value is not None)


def _refusal(node: ir.Node, rule: OpRule, inputs: tuple[ir.Value, ...], integer: set[ir.Value]) -> str | None:
    """Return why the target's integer kernel cannot take this node, or None where it can."""
    if any(constant(value) is not None for value in inputs):
        return "one of its inputs is a float constant"
    if rule.weight is None:
        ready = rule.output is OutputRule.FLOAT or all(value in integer for value in inputs)
        return None if ready else "its inputs come from float operators"
    weight = constant(node.inputs[rule.weight]) if rule.weight < len(node.inputs) else None
    if weight is None:
        return "its weights are computed, not constant"
    bias = node.inputs[rule.bias] if rule.bias is not None and rule.bias < len(node.inputs) else None
    values = constant(bias)
    if bias is not None and values is None:
        return "its bias is computed, not constant"
    if values is not None and values.ndim > 1 and len(values) > 1:
        return f"its bias is {list(values.shape)}: another one for each row"
    return weight_refusal(node, weight)


def shortcut(inputs: Sequence[ir.Value | None]) -> int | None:
    """Return which of the `inputs` of an Add is its shortcut, where the other comes from a convolution; else None.

    The shortcut is the branch with fewer operators since both left a common tensor: none at all, or one convolution
    that downsamples. The other branch holds a convolution of its own.
    """
    if len(inputs) != 2 or inputs[0] is inputs[1] or any(constant(value) is not None for value in inputs):  # noqa: PLR2004 - binary
        return None
    branches = own_branches(inputs)
    short = 0 if len(branches[0]) < len(branches[1]) else 1
    return short if any(node.op_type == "Conv" for node in branches[1 - short]) else None


def own_branches(inputs: Sequence[ir.Value | None]) -> tuple[set[ir.Node], set[ir.Node]]:
    """Return, of two values, the operators that each is computed from and the other is not."""
    first, second = map(_upstream, inputs)
    return first - second, second - first


def _upstream(value: ir.Value | None) -> set[ir.Node]:
    """Return every operator that `value` is computed from."""
    found: set[ir.Node] = set()
    stack = [value]
    while stack:
        each = stack.pop()
        producer = None if each is None else each.producer()
        if producer is not None and producer not in found:
            found.add(producer)
            stack.extend(producer.inputs)
    return found


def _unwanted(node: ir.Node, rule: OpRule, inputs: tuple[ir.Value, ...], placement: Placement) -> str | None:
    """Return why the target would not run this node in integers although it could, or None."""
    makers = [value.producer() for value in inputs]
    if not placement.integer_pixels and any(
        maker is not None and maker.op_type == "DequantizeLinear" for maker in makers
    ):
        return f"{placement.target} runs in float what reads the pixels"
    if node.op_type in placement.gates:
        return _gate_refusal(node, placement)
    weight = None if rule.weight is None else constant(node.inputs[rule.weight])
    return None if weight is None else gains_nothing(node, weight.shape, placement)


def _gate_refusal(node: ir.Node, placement: Placement) -> str | None:
    """Return why a HardSwish or HardSigmoid cannot be built of integer operators, or None where it can."""
    if node.outputs[0].name in placement.float_outputs:
        return "what it makes stays float by design"
    return None if min(gate_factors(node)) > 0 else "an integer HardSigmoid needs alpha and beta above 0"


def gate_factors(node: ir.Node) -> tuple[float, float]:
    """Return a and b of a HardSwish or HardSigmoid: its gate is clip(a x + b, 0, 1)."""
    if node.op_type == "HardSwish":
        return 1 / 6, 0.5
    return node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)


def gains_nothing(node: ir.Node, shape: Sequence[int], placement: Placement) -> str | None:
    """Return why integers gain nothing in `node`, whose weight has this `shape`; None where they do."""
    least = placement.fewest_channels
    made, read = shape[:2]
    convolution = node.op_type == "Conv"
    grouped = convolution and node.attributes.get_int("group", 1) > 1
    first = convolution and not any(
        before.op_type in {"Conv", "Gemm", "MatMul"} for before in _upstream(node.inputs[0])
    )
    if made < least or (read < least and not grouped and not first):
        return f"{placement.target} gains nothing below {least} channels: its weight is {list(shape)}"
    rows = _rows(node.inputs[0]) if node.op_type in _PRODUCTS else None
    if rows is not None and rows < placement.fewest_rows:
        return f"{placement.target} gains nothing below {placement.fewest_rows} rows: it reads {rows} of each input"
    return None


def _rows(value: ir.Value | None) -> int | None:
    """Return how many rows a product reads of `value` for one input of the network, None where that is not known."""
    sizes = None if value is None or value.shape is None else list(value.shape)[:-1]
    if not sizes or not all(isinstance(size, int) for size in sizes[1:]):
        return None
    return math.prod(size for size in sizes if isinstance(size, int))  # an open first axis is the batch


def weight_refusal(node: ir.Node, weight: np.ndarray) -> str | None:
    """Return why integer kernels do not take this constant weight of `node`, or None where they do."""
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}, not float32"
    if not np.isfinite(weight).all():
        return "its weights hold NaN or Inf"
    return _attribute_refusal(node, weight)


def _attribute_refusal(node: ir.Node, weight: np.ndarray) -> str | None:
    """Return which attribute or weight rank the integer kernels here do not take."""
    get = node.attributes
    match node.op_type:
        case "Conv" if weight.ndim != _CONV_RANK:
            return f"it has {weight.ndim - 2} spatial dimensions, not 2"
        case "Conv" if get.get_string("auto_pad", "NOTSET") not in {"NOTSET", ""}:
            return "its padding is automatic, not explicit"
        case "Gemm" if get.get_float("alpha", 1.0) != 1.0 or get.get_float("beta", 1.0) != 1.0:
            return "integer Gemm needs alpha = beta = 1"
        case "Gemm" if get.get_int("transA", 0):
            return "integer Gemm needs transA = 0"
        case "MatMul" if weight.ndim != _MATRIX_RANK:
            return f"its weight has {weight.ndim} dimensions, not 2"
        case _:
            return None


def _output(node: ir.Node, placement: Placement) -> tuple[ir.Value, ir.Node | None]:
    """Return the tensor that would get the Q, and the Relu or Clip it absorbs on the way."""
    output = node.outputs[0]
    consumers = output.consumers()
    gate = node.op_type in placement.gates  # its own Q is where it is clipped
    if gate or placement.activation.symmetric or len(consumers) != 1 or output.is_graph_output():
        return output, None
    (consumer,) = consumers
    if consumer.op_type not in placement.absorbed or clip_limits(consumer) is None:
        return output, None
    return consumer.outputs[0], consumer


def clip_limits(node: ir.Node) -> tuple[float, float] | None:
    """Return (min, max) of a Relu or Clip with constant limits that let 0 pass, or None."""
    own = node.domain in DEFAULT_DOMAINS
    if own and node.op_type == "Relu":
        return 0.0, float("inf")
    if not own or node.op_type != "Clip":
        return None
    limits = [float("-inf"), float("inf")]
    for position in (1, 2):
        value = node.inputs[position] if position < len(node.inputs) else None
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            return None
        if array is not None:
            limits[position - 1] = float(array.item())
    return (limits[0], limits[1]) if limits[0] <= 0.0 <= limits[1] else None


def _drop_useless_moves(ops: list[IntegerOp]) -> tuple[list[IntegerOp], list[Skip]]:
    """Drop operators that only move values where no integer operator reads the result."""
    needed: set[ir.Value] = set()
    kept: list[IntegerOp] = []
    dropped: list[Skip] = []
    for op in reversed(ops):
        if op.rule.output is OutputRule.SHARE and op.output not in needed:
            dropped.append(Skip(op.name, "no integer operator reads its result"))
            continue
        needed.update(op.inputs)
        kept.append(op)
    return kept[::-1], dropped[::-1]


def _drop_lone_shortcuts(ops: list[IntegerOp]) -> tuple[list[IntegerOp], list[Skip]]:
    """Drop every Add whose shortcut would be quantized although no convolution of its other branch is."""
    weighted = {op.node for op in ops if op.rule.weight is not None}
    kept: list[IntegerOp] = []
    dropped: list[Skip] = []
    for op in ops:
        lone = op.node.op_type == "Add" and op.rule.output is OutputRule.FLOAT
        if lone and weighted.isdisjoint(own_branches(op.node.inputs)[1 - op.rule.activations[0]]):
            dropped.append(Skip(op.name, "no weights of its other branch are integers"))
            continue
        kept.append(op)
    return kept, dropped


def _with_tensors(ops: list[IntegerOp], skips: list[Skip]) -> Plan:
    observed: dict[str, None] = {}
    shared: dict[str, str] = {}
    limits: dict[str, tuple[float, float]] = {}
    for op in ops:
        for value in op.inputs:
            producer = value.producer()
            ready = producer is not None and producer.op_type == "DequantizeLinear"
            if not ready and str(value.name) not in shared:
                observed.setdefault(str(value.name))
        if op.output is None:
            continue
        if op.rule.output is OutputRule.SHARE:
            shared[str(op.output.name)] = str(op.inputs[0].name)
            continue
        observed.setdefault(str(op.output.name))
        found = None if op.absorbed is None else clip_limits(op.absorbed)
        if found is not None:
            limits[str(op.output.name)] = found
    return Plan(tuple(ops), tuple(observed), shared, limits, tuple(skips))
