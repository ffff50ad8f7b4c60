"""Whether this CPU adds neighbouring uint8 x int8 products in saturating int16: measured, not read off its flags.

A product of the largest activations and weights, 255 * 127 for each of 64 pairs, has the exact sum 64 * 32385. A kernel
that adds two neighbours in int16 stops at 32767 for each pair. Pair-safe weights never get there; a full-range int8
file of another tool gives other results on such a CPU than on one with VNNI.
"""

import base64
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeft.runtime.session import session_options

Multiply = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int8]], npt.NDArray[np.int32]]

_LENGTH, _COLUMNS = 64, 16
_MODEL: Final = base64.b64decode(
    "CAc6ZAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgVwYWlyc1oUCgFhEg8KDQgCEgkKAggBCgMSAUta"
    "FQoBYhIQCg4IAxIKCgMSAUsKAxIBTmIUCgF5Eg8KDQgGEgkKAggBCgMSAU5CBAoAEA0="
)
"""y = MatMulInteger(a uint8 [1, K], b int8 [K, N]): a device has onnxruntime, but no onnx to write a model with."""


def saturates(multiply: Multiply | None = None) -> bool:
    """Return whether sums of neighbouring products saturate here.

    Args:
        multiply: uint8 [1, K] times int8 [K, N] to int32 [1, N]; onnxruntime's kernel unless given.
    """
    a = np.full((1, _LENGTH), 255, np.uint8)
    b = np.full((_LENGTH, _COLUMNS), 127, np.int8)
    exact = a.astype(np.int64) @ b.astype(np.int64)
    return bool(((multiply or _onnxruntime)(a, b) != exact).any())


def _onnxruntime(a: npt.NDArray[np.uint8], b: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    session = ort.InferenceSession(_MODEL, session_options(1, spinning=False), providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.int32] = session.run(None, {"a": a, "b": b})[0]
    return found
