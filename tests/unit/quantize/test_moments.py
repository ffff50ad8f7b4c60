import numpy as np
import onnx_ir as ir
import pytest

from edgeft.quantize.affine import AffineParams
from edgeft.quantize.layout import WeightLayout, patches, weight_layout
from edgeft.quantize.moments import MomentAccumulator, evenly_spaced
from edgeft.quantize.placement import IntegerType

PARAMS = AffineParams(np.float32(0.5).reshape(()), np.uint8(3).reshape(()), IntegerType.U8)


def conv_layout(groups: int = 1, **attributes: object) -> WeightLayout:
    return weight_layout(ir.node("Conv", [], {"group": groups, **attributes}), (8, 4 // groups, 3, 3), 0)


def test_variances_alone_are_those_of_all_positions() -> None:
    layout = conv_layout(pads=[1, 1, 1, 1])
    q = np.random.default_rng(0).integers(0, 256, (9, 4, 7, 8)).astype(np.uint8)
    moments = MomentAccumulator(layout, PARAMS, 9, covariance=False)
    for start in range(0, 9, 4):
        moments.add(q[start : start + 4])
    columns = patches((q.astype(np.float64) - 3) * 0.5, layout, 0.0)
    found = moments.result()
    np.testing.assert_allclose(found.mean, columns.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.variance, columns.var(axis=1), rtol=1e-12)
    assert found.covariance is None


def test_moments_of_chunks_are_the_moments_of_the_whole() -> None:
    layout = weight_layout(ir.node("Gemm", []), (5, 6), 0)
    q = np.random.default_rng(0).integers(0, 256, (40, 6)).astype(np.uint8)
    moments = MomentAccumulator(layout, PARAMS, 40)
    for start in range(0, 40, 7):
        moments.add(q[start : start + 7])
    x = (q.astype(np.float64) - 3) * 0.5
    found = moments.result()
    np.testing.assert_allclose(found.mean[0], x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance[0], np.cov(x.T, bias=True), rtol=1e-4)  # float32 products


def test_depthwise_channels_have_covariances_of_their_own() -> None:
    layout = weight_layout(ir.node("Conv", [], {"group": 4}), (4, 1, 3, 3), 0)
    moments = MomentAccumulator(layout, PARAMS, 2)
    moments.add(np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6)).astype(np.uint8))
    assert moments.result().covariance.shape == (4, 9, 9)


def test_moments_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no chunk"):
        MomentAccumulator(conv_layout(), PARAMS, 1).result()


def test_positions_are_evenly_spaced() -> None:
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert evenly_spaced(100, 4).tolist() == [12, 37, 62, 87]
