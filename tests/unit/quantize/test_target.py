import numpy as np
import onnx_ir as ir
import pytest

from edgeft.quantize.affine import AffineParams
from edgeft.quantize.layout import weight_layout
from edgeft.quantize.moments import MomentAccumulator
from edgeft.quantize.placement import IntegerType
from edgeft.quantize.target import follow_float


def moments_of(x: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cov(x) and cov(real, x), [1, K, K]."""
    centred, other = x - x.mean(axis=0), real - real.mean(axis=0)
    return (centred.T @ centred / len(x))[None], (other.T @ centred / len(x))[None]


def test_equal_inputs_leave_the_weights_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    matrix = rng.normal(size=(1, 3, 6))
    covariance, cross = moments_of(x, x)
    np.testing.assert_allclose(follow_float(matrix, covariance, cross), matrix, atol=1e-9)


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_outputs_follow_the_float_ones_more_closely_on_new_inputs(noise: float) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(8, 8))
    matrix = rng.normal(size=(1, 4, 8))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        real = rng.normal(size=(count, 8)) @ mixing
        x = np.where(np.arange(8) < 3, 0.8, 1.0) * real + rng.normal(size=real.shape) * noise * real.std()
        return x, real

    moved = follow_float(matrix, *moments_of(*draw(2000)))
    x, real = draw(2000)
    before = np.var(x @ matrix[0].T - real @ matrix[0].T)
    after = np.var(x @ moved[0].T - real @ matrix[0].T)
    assert after < 0.8 * before


def test_inputs_that_never_vary_change_nothing() -> None:
    matrix = np.ones((1, 2, 3))
    np.testing.assert_array_equal(follow_float(matrix, np.zeros((1, 3, 3)), np.zeros((1, 3, 3))), matrix)


def test_the_cross_covariance_is_taken_at_the_same_positions() -> None:
    layout = weight_layout(ir.node("Conv", [], {"pads": [1, 1, 1, 1]}), (2, 2, 3, 3), 0)
    params = AffineParams(np.float32(0.25).reshape(()), np.uint8(9).reshape(()), IntegerType.U8)
    rng = np.random.default_rng(2)
    q = rng.integers(0, 256, (4, 2, 5, 5)).astype(np.uint8)
    real = (q.astype(np.float32) - 9) * np.float32(0.25)
    moments = MomentAccumulator(layout, params, 4)
    for start in (0, 3):
        moments.add(q[start : start + 3], real[start : start + 3])
    found = moments.result()
    assert found.cross is not None
    np.testing.assert_allclose(found.cross, found.covariance, rtol=1e-3, atol=0.05)  # float32 sums near 60 squared
