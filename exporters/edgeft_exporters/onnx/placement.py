"""What onnxruntime's CPU provider fuses into integer kernels, as data: one placement for each profile.

Probed with onnxruntime 1.31.1 and 1.32.0 by tests/unit/exporters/test_onnx_placement.py, which builds one Q/DQ graph
per rule and per reason and looks at the optimised graph: a runtime that changes its mind fails that test.

    uint8 activations, asymmetric, per tensor; int8 weights, symmetric, per output channel; int32 bias

Other types are slower on x86 (uint8 weights 20 to 40 %, symmetric int8 activations below float on most nets).

    onnx          weights are pair-safe, so sums are exact on every CPU: x86 with and without VNNI, ARM
    onnx-vnni     weights use the full range: exact only where the CPU adds in 32 bits, see `runtime.saturation`
    onnx-arm64    int8 activations, asymmetric, as ARM's dot products of signed bytes take them; full range
"""

from dataclasses import replace
from typing import Final

from edgeft.quantize.placement import IntegerType, OpRule, OutputRule, Placement, TensorType

_MOVES: Final = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
"""Operators that run on integers as they are when both sides have the same parameters."""

_RULES: Final = (
    OpRule("Conv", (0,), OutputRule.QUANTIZE, weight=1, weight_axis=0, bias=2),
    OpRule("Gemm", (0,), OutputRule.QUANTIZE, weight=1, weight_axis=1, weight_axis_transposed=0, bias=2),
    OpRule("MatMul", (0,), OutputRule.FLOAT, weight=1, weight_axis=1),
    OpRule("Add", (0, 1), OutputRule.QUANTIZE),
    OpRule("Mul", (0, 1), OutputRule.QUANTIZE),
    OpRule("Concat", (), OutputRule.QUANTIZE),
    OpRule("GlobalAveragePool", (0,), OutputRule.QUANTIZE),
    OpRule("AveragePool", (0,), OutputRule.QUANTIZE),
    OpRule("LeakyRelu", (0,), OutputRule.QUANTIZE),
    OpRule("Sigmoid", (0,), OutputRule.QUANTIZE),
    *(OpRule(op_type, (0,), OutputRule.SHARE) for op_type in _MOVES),
)

_NO_KERNEL: Final = "onnxruntime has no integer kernel for it on a CPU"
_FLOAT_REASONS: Final = {
    "HardSwish": f"{_NO_KERNEL}: it is split into HardSigmoid and Mul",
    "HardSigmoid": _NO_KERNEL,
    "Gelu": _NO_KERNEL,
    "Erf": _NO_KERNEL,
    "Tanh": _NO_KERNEL,
    "Sub": _NO_KERNEL,
    "Div": _NO_KERNEL,
    "Pad": _NO_KERNEL,
    "ReduceMean": f"{_NO_KERNEL} (only GlobalAveragePool, for a mean over all spatial axes)",
    "LayerNormalization": _NO_KERNEL,
    "InstanceNormalization": _NO_KERNEL,
    "BatchNormalization": f"{_NO_KERNEL}, and no Conv or Gemm stands before it to fold it into",
    "ConvTranspose": _NO_KERNEL,
    "DepthToSpace": _NO_KERNEL,
    "Resize": "its integer kernel is exact for nearest neighbours only",
    "Split": "its outputs would all have to share one scale",
    "Softmax": "its integer kernel keeps 8 bits of a probability; float costs next to nothing here",
    "Relu": "it stands alone: only a Relu between an integer operator and its Q vanishes",
    "Clip": "it stands alone: only a Clip between an integer operator and its Q vanishes",
}

PLACEMENT: Final = Placement(
    target="onnx",
    activation=TensorType(IntegerType.U8, symmetric=False),
    weight=TensorType(IntegerType.S8, symmetric=True),
    bias=IntegerType.S32,
    rules=_RULES,
    gates=("HardSigmoid", "HardSwish"),
    absorbed=("Relu", "Clip"),
    float_outputs=("logits",),
    float_reasons=_FLOAT_REASONS,
    dynamic=("MatMul", "Gemm"),  # ConvInteger runs at a tenth of float's speed
    block_weights=("MatMul",),
    rounds_floats=("Conv", "ConvTranspose", "Gemm"),
    carries_q=(*_MOVES, "Expand", "Identity", "Pad"),
    swapped_with_q=("MaxPool",),  # 4.1 ms instead of 0.1 behind ResNet-18's stem: uint8 in NCHW
    saturating_pairs=True,
)

VNNI: Final = replace(PLACEMENT, target="onnx-vnni", saturating_pairs=False)

ARM64: Final = replace(
    PLACEMENT,
    target="onnx-arm64",
    activation=TensorType(IntegerType.S8, symmetric=False),
    integer_pixels=False,  # they are uint8, and the runtime takes one type on both sides
    saturating_pairs=False,
)
