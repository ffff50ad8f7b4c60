"""SmoothQuant: move outliers from activations, which share one scale, into weights, which have one per channel.

    W x = (W diag(s)) (diag(1/s) x),        s_k = r_k^a,    r_k the range of input channel k

What 8 bits cost at the output, for a in [0, 1]:

    activations   D^2 / 12 sum_k s_k^2 |w_k|^2               D = (max_k high_k / s_k - min_k low_k / s_k) / 255
    weights       sum_o d_o^2 / 12 sum_k E[x_k^2] / s_k^2      d_o = max_k |w_ok s_k| / 100

a = 1 is best for activations alone: every channel fills the range. The a with the least sum is taken; 100 stands for
the 127 to 64 steps that pair-safe channels keep. Source: Xiao et al. 2023, eq. 3 and 4; their search for a runs the
model, the cost above needs only what calibration collected.
"""

import numpy as np
import numpy.typing as npt

from edgeft.quantize.affine import Doubles, Floats

WORTH_A_MUL = 1.5
"""How many times what smoothing costs must go into what its absence does, where it takes a multiplication as the model
runs: MiniLM gains 1.8 to 12 times, its shape with random weights 1.2 to 1.35."""
_STRENGTHS = tuple(step / 20 for step in range(21))
_LEVELS, _WEIGHT_STEPS = 255, 100
_SMALLEST = 1e-5
"""A channel's least range, relative to the largest: a dead channel must not grow without bound."""


def smoothing(matrix: Doubles, squares: Doubles, low: Floats, high: Floats, *, least_gain: float = 1.0) -> Floats:
    """Return s, float32 [K]: what each input channel is divided by; 1 everywhere where too little is gained.

    Args:
        matrix: float64 [O, K] or [O, K, T], the weights of everything that reads the activation; T taps of a kernel.
        squares: float64 [K], E[x^2] of each input channel.
        low: float32 [K], the least value of each channel.
        high: float32 [K], the largest.
        least_gain: how many times the cost of s must go into that of 1.
    """
    low64, high64 = np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)
    span = np.maximum(-low64, high64)
    if not span.max(initial=0.0):
        return np.ones(len(low), np.float32)
    span = np.maximum(span / span.max(), _SMALLEST)
    matrix = matrix.reshape(*matrix.shape[:2], -1)
    columns = (matrix**2).sum(axis=(0, 2))
    costs = [_cost(span**strength, matrix, columns, squares, low64, high64) for strength in _STRENGTHS]
    best = int(np.argmin(costs))
    if costs[0] < least_gain * costs[best]:
        best = 0
    chosen: npt.NDArray[np.float32] = (span ** _STRENGTHS[best]).astype(np.float32)
    return chosen


def _cost(s: Doubles, matrix: Doubles, columns: Doubles, squares: Doubles, low: Doubles, high: Doubles) -> float:
    step = ((high / s).max() - (low / s).min()) / _LEVELS
    weight_steps = np.abs(matrix * s[:, None]).max(axis=(1, 2)) / _WEIGHT_STEPS
    activations = step**2 / 12 * (s**2 * columns).sum()
    weights = (weight_steps**2).sum() / 12 * matrix.shape[2] * (squares / s**2).sum()
    return float(activations + weights)
