import numpy as np
import pytest

from edgeft.quantize import weights
from edgeft.quantize.gptq import gptq, output_error
from edgeft.quantize.pair_rule import repair, unsafe_pairs
from edgeft.quantize.weights import QMAX_CANDIDATES, IntegerMatrix, scale_floor, search_scales


def problem(seed: int, outputs: int = 16, columns: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed weights and correlated inputs: [1, O, K] and their covariance [1, K, K]."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns)) / np.sqrt(columns) + np.eye(columns)
    return rng.standard_t(4, (1, outputs, columns)) * 0.1, (mixing @ mixing.T)[None]


def nearest(matrix: np.ndarray) -> IntegerMatrix:
    scale = np.abs(matrix).max(axis=-1) / 127
    return IntegerMatrix(np.rint(matrix / scale[..., None]).astype(np.int8), scale.astype(np.float32))


def test_search_is_pair_safe_and_better_than_shrinking_at_full_range() -> None:
    matrix, covariance = problem(0, outputs=64, columns=256)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    floor = np.zeros(matrix.shape[:2])
    searched = search_scales(matrix, variance, floor, pair_safe=True, search=True)
    shrunk = search_scales(matrix, variance, floor, pair_safe=True, search=False)
    assert unsafe_pairs(nearest(matrix).values) > 0
    assert unsafe_pairs(searched.values) == unsafe_pairs(shrunk.values) == 0
    assert output_error(matrix, searched.real, covariance).sum() < output_error(matrix, shrunk.real, covariance).sum()


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("pair_safe", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])  # a MatMul's weight is viewed transposed
def test_the_search_finds_what_trying_every_qmax_finds(size: float, order: str, *, pair_safe: bool) -> None:
    rng = np.random.default_rng(7)
    matrix, variance = rng.standard_t(3, (2, 40, 33)) * size, rng.uniform(0, 4, (2, 33)) ** 4
    matrix = np.asarray(matrix, order=order)
    found = search_scales(matrix, variance, np.zeros((2, 40)), pair_safe=pair_safe, search=True)
    importance = variance[:, None, :] + 1e-6 * variance.mean()
    least = np.full((2, 40), np.inf)
    for qmax in QMAX_CANDIDATES:
        scale = (np.abs(matrix).max(axis=-1) / qmax).astype(np.float32).astype(np.float64)[..., None]
        integers = np.rint(matrix / scale)
        if pair_safe:
            integers = repair(integers, matrix / scale, importance)
        least = np.minimum(least, (np.square(integers * scale - matrix) * importance).sum(axis=-1))
    error = (np.square(found.real - matrix) * importance).sum(axis=-1)
    assert (error <= least * (1 + 1e-4)).all()


def test_no_channel_is_worse_than_with_7_bits_whatever_the_search_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    matrix, variance = rng.uniform(0.9, 1, (1, 8, 32)), np.ones((1, 32))  # at 127 every pair has to be repaired
    monkeypatch.setattr(weights, "_least_error", lambda matrix, *_, **__: np.full(matrix.shape[:2], 127.0))
    found = search_scales(matrix, variance, np.zeros((1, 8)), pair_safe=True, search=True)
    np.testing.assert_allclose(found.scale, np.abs(matrix).max(axis=-1) / 64, rtol=1e-6)


def test_variances_below_0_cost_nothing() -> None:
    matrix, _ = problem(9)
    found = search_scales(matrix, np.full((1, 24), -1e-3), np.zeros((1, 16)), pair_safe=True, search=True)
    expected = search_scales(matrix, np.zeros((1, 24)), np.zeros((1, 16)), pair_safe=True, search=True)
    np.testing.assert_array_equal(found.values, expected.values)


def test_without_the_pair_rule_a_channel_is_rounded_to_nearest() -> None:
    matrix, _ = problem(1)
    found = search_scales(matrix, np.ones((1, 24)), np.zeros((1, 16)), pair_safe=False, search=False)
    np.testing.assert_array_equal(found.values, nearest(matrix).values)


def test_dead_channels_stay_zero() -> None:
    matrix = np.zeros((1, 2, 4))
    matrix[0, 1, 0] = 1.0
    found = search_scales(matrix, np.ones((1, 4)), np.zeros((1, 2)), pair_safe=True, search=True)
    assert not found.values[0, 0].any()
    assert found.scale[0, 0] > 0
    assert np.isfinite(found.real).all()


def test_constant_inputs_do_not_divide_by_zero() -> None:
    matrix, _ = problem(2)
    found = search_scales(matrix, np.zeros((1, 24)), np.zeros((1, 16)), pair_safe=True, search=True)
    assert unsafe_pairs(found.values) == 0


@pytest.mark.parametrize("bias", [1e-6, 1.0, 1e4])
def test_the_floor_makes_the_bias_fit_int32(bias: float) -> None:
    matrix = np.full((1, 1, 2), 1e-12)  # a near-dead channel
    floor = scale_floor(np.array([bias]), 0.02).reshape(1, 1)
    found = search_scales(matrix, np.ones((1, 2)), floor, pair_safe=True, search=True)
    integer_bias = bias / (np.float32(0.02) * found.scale[0, 0])
    assert abs(integer_bias) <= 2**30 * (1 + 1e-6)


def test_bias_scales_never_underflow() -> None:
    assert scale_floor(np.zeros(1), 1e-6)[0] * 1e-6 >= np.finfo(np.float32).tiny * (1 - 1e-6)


@pytest.mark.parametrize("pair_safe", [True, False])
def test_gptq_lowers_the_output_error_of_every_channel_or_leaves_it(*, pair_safe: bool) -> None:
    matrix, covariance = problem(3)
    start = search_scales(
        matrix, np.diagonal(covariance, axis1=1, axis2=2), np.zeros((1, 16)), pair_safe=pair_safe, search=True
    )
    found = gptq(matrix, covariance, start, pair_safe=pair_safe)
    before, after = output_error(matrix, start.real, covariance), output_error(matrix, found.real, covariance)
    assert (after <= before).all()
    assert after.sum() < 0.8 * before.sum()
    np.testing.assert_array_equal(found.scale, start.scale)
    if pair_safe:
        assert unsafe_pairs(found.values) == 0


def test_gptq_equals_rounding_where_inputs_are_independent() -> None:
    matrix, _ = problem(4)
    start = nearest(matrix)
    found = gptq(matrix, np.eye(24)[None], start, pair_safe=False)
    np.testing.assert_array_equal(found.values, start.values)


def test_gptq_of_several_blocks_equals_gptq_column_by_column() -> None:
    matrix, covariance = problem(5, outputs=4, columns=150)  # three lazy blocks
    start = nearest(matrix)
    found = gptq(matrix, covariance, start, pair_safe=False)
    expected = plain_gptq(matrix[0], covariance[0], start.scale[0].astype(np.float64))
    kept = output_error(matrix, found.real, covariance) < output_error(matrix, start.real, covariance)
    assert kept.all()
    assert (found.values[0] != expected).mean() < 0.01  # ties may fall the other way


def test_a_covariance_that_is_rounding_noise_is_no_error() -> None:
    """Inputs that hardly vary: E[x x^T] - m m^T has negative directions, larger than the damping."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(1, 4, 24))
    noise = rng.normal(0, 1e-11, (24, 24))
    covariance = (6e-11 * np.eye(24) + noise + noise.T)[None]
    assert np.linalg.eigvalsh(covariance[0]).min() < -0.01 * np.trace(covariance[0]) / 24
    start = search_scales(matrix, np.ones((1, 24)), np.zeros((1, 4)), pair_safe=True, search=True)
    found = gptq(matrix, covariance, start, pair_safe=True)
    assert unsafe_pairs(found.values) == 0
    assert (output_error(matrix, found.real, covariance) <= output_error(matrix, start.real, covariance)).all()


def plain_gptq(matrix: np.ndarray, covariance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Optimal brain quantization in column order, inverting the remaining Hessian anew for each column."""
    work, q = matrix.copy(), np.zeros_like(matrix)
    size = matrix.shape[1]
    hessian = covariance + 0.01 * np.trace(covariance) / size * np.eye(size)
    for k in range(size):
        inverse = np.linalg.inv(hessian[k:, k:])
        q[:, k] = np.clip(np.rint(work[:, k] / scale), -127, 127)
        error = work[:, k] - q[:, k] * scale
        work[:, k:] -= np.outer(error / inverse[0, 0], inverse[0])
    return q


def test_gptq_survives_inputs_that_never_vary() -> None:
    matrix, _ = problem(6)
    start = nearest(matrix)
    found = gptq(matrix, np.zeros((1, 24, 24)), start, pair_safe=True)
    assert found.values.shape == start.values.shape
