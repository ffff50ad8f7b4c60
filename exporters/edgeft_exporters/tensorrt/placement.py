"""Where TensorRT wants Q/DQ in a network with explicit quantization, as data (unverified on hardware).

    int8 activations, symmetric, per tensor; int8 weights, symmetric, per output channel; float bias

Source: NVIDIA's TensorRT documentation, "Working with Quantized Types", its recommended placement: quantize the inputs
of weighted operators and not their outputs, leave biases float, keep Relu beside its convolution, quantize the shortcut
of a residual Add, one Q for a tensor with several readers. A product of a matrix and a vector, as the classifier is for
one image, stays float, as NVIDIA's Model-Optimizer leaves it. Everything else runs in the float type of the network.
"""

from typing import Final

from edgeft.quantize.placement import IntegerType, Placement, TensorType
from edgeft_exporters.weighted_inputs import WEIGHTED_INPUTS

FEWEST_CHANNELS: Final = 16
FEWEST_ROWS: Final = 2
_FLOAT: Final = "TensorRT computes it in the network's float type"
_FUSED: Final = "TensorRT fuses it into the layer before it"

PLACEMENT: Final = Placement(
    target="tensorrt",
    activation=TensorType(IntegerType.S8, symmetric=True),
    weight=TensorType(IntegerType.S8, symmetric=True),
    bias=None,
    rules=WEIGHTED_INPUTS,
    float_outputs=("logits",),
    float_reasons={
        **dict.fromkeys(("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Add"), _FUSED),
        **dict.fromkeys(
            ("Mul", "LayerNormalization", "Softmax", "Gelu", "Erf", "GlobalAveragePool", "AveragePool", "ReduceMean"),
            _FLOAT,
        ),
        **dict.fromkeys(("MaxPool", "Concat", "Flatten", "Reshape", "Transpose"), "it has no arithmetic"),
    },
    quantizes_shortcuts=True,
    smooths=True,
    fewest_channels=FEWEST_CHANNELS,
    fewest_rows=FEWEST_ROWS,
    as_written=True,
)
