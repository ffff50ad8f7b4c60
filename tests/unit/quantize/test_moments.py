import numpy as np
import onnx_ir as ir
import pytest

from edgeft.quantize.affine import AffineParams
from edgeft.quantize.layout import WeightLayout, patches, weight_layout
from edgeft.quantize.moments import MomentAccumulator, evenly_spaced, position_sums
from edgeft.quantize.placement import IntegerType

PARAMS = AffineParams(np.float32(0.5).reshape(()), np.uint8(3).reshape(()), IntegerType.U8)


def conv_layout(groups: int = 1, **attributes: object) -> WeightLayout:
    return weight_layout(ir.node("Conv", [], {"group": groups, **attributes}), (8, 4 // groups, 3, 3), 0)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"pads": [1, 1, 1, 1]}, {"pads": [0, 2, 1, 0], "strides": [2, 2]}, {"dilations": [2, 2], "strides": [1, 3]}],
)
@pytest.mark.parametrize("groups", [1, 4])
def test_tap_sums_equal_sums_over_im2col(groups: int, attributes: dict[str, object]) -> None:
    layout = conv_layout(groups, **attributes)
    q = np.random.default_rng(0).integers(0, 256, (3, 4, 7, 8)).astype(np.uint8)
    columns = patches(q.astype(np.float64) - 3, layout, 0.0)
    sums, positions = position_sums(q, layout, 3)
    np.testing.assert_array_equal(sums, columns.sum(axis=1))
    assert positions == columns.shape[1]


def test_a_kernel_wider_than_the_image_reads_padding_only_at_its_far_taps() -> None:
    layout = conv_layout(pads=[1, 1, 1, 1])
    q = np.full((1, 4, 1, 1), 5, np.uint8)
    sums, positions = position_sums(q, layout, 3)
    assert positions == 1
    assert sums.reshape(9, 4).sum(axis=1).tolist() == [0, 0, 0, 0, 8, 0, 0, 0, 0]


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
