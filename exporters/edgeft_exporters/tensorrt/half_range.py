"""Which numbers of a Q/DQ graph float16 does not hold: constants, weight scales, and activations by their calibration.

float16 has 11 bits of mantissa, ends at 65504 and begins at 6e-8. A scale tells how far an activation reaches:
127 * scale. What stands between two scales, such as a convolution's output before its Relu, was not measured.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.quantize.plan import constant

LARGEST: Final = 65504.0
HEADROOM: Final = 2.0
"""Calibration data has not seen the largest value of all."""
PRECISE: Final = 2.0**-9
"""The largest relative error of a number in float16 that 8-bit integers do not notice: a quarter of their step."""
_QMAX: Final = 127
_PASSIVE = frozenset({"Constant", "Cast", "QuantizeLinear", "DequantizeLinear"})
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def is_precise(scale: NDArray[np.generic]) -> bool:
    """Return whether float16 holds every one of `scale` with an error that integers do not notice."""
    values = np.asarray(scale, np.float64)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float64)
    return bool((np.isfinite(rounded) & (np.abs(rounded - values) <= PRECISE * np.abs(values))).all())


def beyond_half(node: ir.Node) -> str | None:
    """Return which constant of `node` is beyond float16; scales of its weights count."""
    for value in node.inputs:
        array = constant(value)
        if array is not None and array.dtype == np.float32:
            if np.abs(array).max(initial=0) > LARGEST:
                return f"its constant reaches {np.abs(array).max():.3g}, float16 {LARGEST:.0f}"
            if array.size == 1 and not is_precise(array):
                return f"its constant {float(array.reshape(())):.3g} is no float16"
        maker = None if value is None else value.producer()
        if maker is None or maker.op_type != "DequantizeLinear" or constant(maker.inputs[0]) is None:
            continue
        scale = constant(maker.inputs[1])
        if scale is not None and not is_precise(scale):
            return f"a scale of its weight is {np.abs(scale).min():.3g}, too small for float16"
    return None


def out_of_range(quantizer: ir.Node) -> Iterator[tuple[ir.Node, str]]:
    """Yield what stays float32 because the range of `quantizer` is beyond float16: all that makes or reads it."""
    scale = constant(quantizer.inputs[1])
    if scale is None:
        return
    reach = float(scale.max()) * _QMAX
    if is_precise(scale) and reach * HEADROOM <= LARGEST:
        return
    name = None if quantizer.inputs[0] is None else quantizer.inputs[0].name
    reason = f"{name!r} reaches {reach:.3g} on calibration data, which float16 does not hold well"
    yield quantizer, reason
    yield from ((node, reason) for node in _makers(quantizer.inputs[0]))
    for pair in quantizer.outputs[0].consumers():
        yield pair, reason
        yield from ((reader, reason) for reader in pair.outputs[0].consumers() if reader.op_type not in _PASSIVE)


def _makers(value: ir.Value | None) -> Iterator[ir.Node]:
    """Yield the operators back to the weighted ones that `value` comes from."""
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type in _PASSIVE:
        return
    yield maker
    if maker.op_type not in _WEIGHTED:
        for each in maker.inputs:
            yield from _makers(each)
