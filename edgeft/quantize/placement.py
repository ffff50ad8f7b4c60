"""What a target runtime asks of a quantized graph, as data: which operators take integers and where Q/DQ stand.

An exporter declares one `Placement`; `edgeft.quantize` inserts Q/DQ pairs by it and nothing else. A runtime fuses an
operator into its integer kernel only where the contract holds: every listed input comes from a DequantizeLinear (DQ),
and, where the output is `OutputRule.QUANTIZE`, its only consumer is exactly one QuantizeLinear (Q) and it is no graph
output.

    x_q = clip(round(x / scale) + zero_point, qmin, qmax)        symmetric: zero_point = 0 (signed)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class IntegerType(StrEnum):
    """An integer type of quantized tensors."""

    U8 = "uint8"
    S8 = "int8"
    S32 = "int32"


class OutputRule(StrEnum):
    """What happens to the first output of an integer operator."""

    QUANTIZE = "quantize"
    """It gets a Q with parameters of its own."""
    SHARE = "share"
    """It gets a Q with the parameters of the first input: the operator only moves, selects or drops values."""
    FLOAT = "float"
    """It stays float: the kernel dequantizes on its way out."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """How one kind of tensor is quantized."""

    dtype: IntegerType
    symmetric: bool
    """True: the zero point is 0, and a signed type uses [-qmax, qmax]."""


@dataclass(frozen=True, slots=True)
class OpRule:
    """How one operator type becomes an integer operator.

    Args:
        op_type: ONNX operator of the default domain.
        activations: indices of the inputs that must come from a DQ; empty means all inputs (Concat). A float constant
            among them keeps the operator in float.
        output: what happens to its first output.
        weight: index of the constant weight input; None for operators without weights.
        weight_axis: axis of the weight that holds the output channels: the axis of per-channel scales.
        weight_axis_transposed: the same where the node's `transB` is 1 (Gemm); None where the attribute does not exist.
        bias: index of the bias input, see `Placement.bias`.
    """

    op_type: str
    activations: tuple[int, ...]
    output: OutputRule
    weight: int | None = None
    weight_axis: int | None = None
    weight_axis_transposed: int | None = None
    bias: int | None = None

    def channel_axis(self, *, transposed: bool) -> int | None:
        """Return the axis of per-channel weight scales; `transposed` is the node's `transB` attribute."""
        if transposed and self.weight_axis_transposed is not None:
            return self.weight_axis_transposed
        return self.weight_axis


@dataclass(frozen=True, slots=True)
class Placement:
    """Where Q/DQ may stand for one target runtime.

    Args:
        target: the exporter's name.
        activation: type of activations, per tensor.
        weight: type of weights, per channel along `OpRule.channel_axis`.
        bias: type of biases, with scale = input scale * weight scale; None leaves them float.
        rules: one rule per operator type that takes integers; every other operator stays float.
        absorbed: operators that vanish when they stand alone between an integer operator and its Q, because the Q's
            range makes them redundant; the Q then goes after them (requires asymmetric activations).
        float_outputs: named tensors that never get a Q (the logits: the last Gemm dequantizes on its way out).
        float_reasons: operator type -> why it stays float, for the report.
        dynamic: those of `rules` that can also quantize their input as they run, with a scale found there.
        block_weights: those of `rules` that take float inputs and weights in 4 or 8 bits with a scale for each block.
        rounds_floats: operators whose float weights the target rounds by itself where they stand between DQ and Q.
        integer_pixels: False where the target runs in float what reads dequantized pixels, although they are integers.
        quantizes_shortcuts: True where Add stays float and takes its shortcut in integers: the branch that joins what
            a convolution made.
        pools_integers: True where a MaxPool is faster on integers, whatever is ahead of it.
        gates: which of HardSwish and HardSigmoid become integer Add and Mul, in place of kernels of their own (requires
            asymmetric activations).
        smooths: True where a multiplication by channel ahead of a Q is fused into what makes the tensor.
        signed: operators that read int8, symmetric, in place of `activation` where what they read is about as negative
            as positive: their kernels subtract a zero point at a cost.
        fewest_channels: a Conv with fewer output channels stays float, and so does one with fewer input channels that
            is not the first layer; likewise a matrix product with fewer rows or columns.
        fewest_rows: a matrix product stays float where what it reads has fewer rows for one input of the network: a
            matrix times a vector is bound by reading the matrix, and integer units wait.
        carries_q: operators over which the target moves a Q or DQ: what is behind them stands between integers, too.
        swapped_with_q: operators that the target exchanges with the Q behind them, into a slower kernel on integers.
        saturating_pairs: True where a kernel of this target may add two neighbouring products in saturating int16, so
            that weights must be pair-safe (Conv, MatMul, Gemm; depthwise kernels do not pair).
        as_written: True where no CPU computes as the target does: answers are those of the graph as it is written, Q/DQ
            in float steps, and not of a CPU's integer kernels, which may saturate.
    """

    target: str
    activation: TensorType
    weight: TensorType
    bias: IntegerType | None
    rules: tuple[OpRule, ...]
    absorbed: tuple[str, ...] = ()
    float_outputs: tuple[str, ...] = ()
    float_reasons: Mapping[str, str] = field(default_factory=dict)
    dynamic: tuple[str, ...] = ()
    block_weights: tuple[str, ...] = ()
    rounds_floats: tuple[str, ...] = ()
    carries_q: tuple[str, ...] = ()
    swapped_with_q: tuple[str, ...] = ()
    integer_pixels: bool = True
    quantizes_shortcuts: bool = False
    pools_integers: bool = False
    gates: tuple[str, ...] = ()
    smooths: bool = False
    signed: tuple[str, ...] = ()
    fewest_channels: int = 0
    fewest_rows: int = 0
    saturating_pairs: bool = False
    as_written: bool = False

    def rule(self, op_type: str) -> OpRule | None:
        """Return the rule of `op_type`, or None where the target runs it in float."""
        return next((rule for rule in self.rules if rule.op_type == op_type), None)

    def gate(self, op_type: str) -> OpRule | None:
        """Return the rule by which `op_type` is built of other operators, or None where it is not."""
        return OpRule(op_type, (0,), OutputRule.QUANTIZE) if op_type in self.gates else None

    def float_reason(self, op_type: str) -> str:
        """Return why `op_type` stays float on this target."""
        return self.float_reasons.get(op_type, f"{self.target} has no integer kernel for {op_type}")
