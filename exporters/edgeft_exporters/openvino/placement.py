"""What OpenVINO's CPU plugin takes in integers, as data.

    uint8 activations, asymmetric, per tensor; int8 weights, symmetric, per output channel; float bias
    int8 activations, symmetric, where a matrix product reads what is as negative as positive: zero points cost time

Only inputs of weighted operators get a Q; what matrix products read is smoothed. Attention's products stay float: both
sides are computed, so no proof covers the pairs that their kernel adds on a CPU without VNNI. The plugin moves
dequantization through everything else by itself and fuses activations, Add and the next Q into the kernel before them,
so a Q on a layer's own output would only cost precision. Probed with openvino 2026.4.1 by
tests/unit/exporters/test_openvino_exporter.py. Its int8 kernels are oneDNN's, which on x86 CPUs without VNNI add pairs
in saturating int16 as onnxruntime's do: weights are pair-safe here, too.
"""

from typing import Final

from edgeft.quantize.placement import IntegerType, Placement, TensorType
from edgeft_exporters.weighted_inputs import WEIGHTED_INPUTS

_FUSED: Final = "OpenVINO computes it in float, fused into the kernel before it where that is possible"
_FLOAT: Final = "OpenVINO computes it in float"

PLACEMENT: Final = Placement(
    target="openvino",
    activation=TensorType(IntegerType.U8, symmetric=False),
    weight=TensorType(IntegerType.S8, symmetric=True),
    bias=None,
    rules=WEIGHTED_INPUTS,
    float_outputs=("logits",),
    float_reasons={
        **dict.fromkeys(("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Gelu", "Add", "Mul"), _FUSED),
        **dict.fromkeys(("LayerNormalization", "Softmax", "ReduceMean", "GlobalAveragePool", "AveragePool"), _FLOAT),
        **dict.fromkeys(
            ("MaxPool", "Concat", "Flatten", "Reshape", "Transpose"),
            "it has no arithmetic: OpenVINO runs it on what comes in",
        ),
    },
    integer_pixels=False,
    pools_integers=True,
    smooths=True,
    signed=("MatMul",),
    saturating_pairs=True,
)
