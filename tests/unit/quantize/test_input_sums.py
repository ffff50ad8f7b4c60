import numpy as np
import onnx_ir as ir
import pytest

from edgeft.quantize import input_sums
from edgeft.quantize.input_sums import InputSums
from edgeft.quantize.layout import WeightLayout, patches, weight_layout


def conv_layout(groups: int = 1, **attributes: object) -> WeightLayout:
    return weight_layout(ir.node("Conv", [], {"group": groups, **attributes}), (8, 4 // groups, 3, 3), 0)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"pads": [1, 1, 1, 1]}, {"pads": [0, 2, 1, 0], "strides": [2, 2]}, {"dilations": [2, 2], "strides": [1, 3]}],
)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kind", "zero_point"), [(np.uint8, 3), (np.uint8, 255), (np.int8, 0)])
def test_means_equal_means_over_im2col(groups: int, attributes: dict[str, object], kind: type, zero_point: int) -> None:
    layout, limits = conv_layout(groups, **attributes), np.iinfo(kind)
    q = np.random.default_rng(0).integers(limits.min, limits.max + 1, (3, 4, 7, 8)).astype(kind)
    sums = InputSums(layout, squares=True)
    sums.add(q[:2])
    sums.add(q[2:])
    columns = patches(q.astype(np.float64) - zero_point, layout, 0.0)
    means, squares = sums.means(zero_point)
    np.testing.assert_allclose(means, columns.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(squares, np.square(columns).mean(axis=1), rtol=1e-12)


def test_a_kernel_wider_than_the_image_reads_padding_only_at_its_far_taps() -> None:
    sums = InputSums(conv_layout(pads=[1, 1, 1, 1]), squares=False)
    sums.add(np.full((1, 4, 1, 1), 5, np.uint8))
    (means,) = sums.means(3)
    assert means.reshape(9, 4).sum(axis=1).tolist() == [0, 0, 0, 0, 8, 0, 0, 0, 0]


def test_rows_of_any_number_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_sums, "_ROWS_AT_ONCE", 7)
    q = np.random.default_rng(0).integers(0, 256, (5, 8, 6)).astype(np.uint8)
    sums = InputSums(weight_layout(ir.node("Gemm", []), (5, 6), 0), squares=True)
    sums.add(q)
    rows = q.reshape(-1, 6).astype(np.float64) - 3
    means, squares = sums.means(3)
    np.testing.assert_allclose(means[0], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(squares[0], np.square(rows).mean(axis=0), rtol=1e-12)


def test_as_many_squares_as_are_added_at_once_fit() -> None:
    assert input_sums._ROWS_AT_ONCE * 255**2 < 2**31
