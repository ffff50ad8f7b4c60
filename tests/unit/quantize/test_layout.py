import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgeft.quantize.layout import WeightLayout, patches, weight_layout


def conv(**attributes: object) -> ir.Node:
    return ir.node("Conv", [], attributes)


def test_conv_products_are_ordered_kh_kw_cin() -> None:
    layout = weight_layout(conv(), (1, 2, 1, 3), 0)
    weight = np.arange(6).reshape(1, 2, 1, 3)  # [o, cin, kh, kw]
    assert layout.to_matrix(weight)[0, 0].tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gemm_rows_are_output_channels(axis: int) -> None:
    layout = weight_layout(ir.node("Gemm", []), (2, 3), axis)
    weight = np.arange(6).reshape(2, 3)
    expected = weight if axis == 0 else weight.T
    assert layout.to_matrix(weight)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_from_matrix_undoes_to_matrix(groups: int) -> None:
    layout = weight_layout(conv(group=groups), (8, 4 // groups, 3, 2), 0)
    weight = np.random.default_rng(0).normal(size=layout.shape)
    assert layout.to_matrix(weight).shape == (groups, 8 // groups, 4 // groups * 6)
    np.testing.assert_array_equal(layout.from_matrix(layout.to_matrix(weight)), weight)


def test_depthwise_is_one_input_channel_for_one_output_channel() -> None:
    assert weight_layout(conv(group=4), (4, 1, 3, 3), 0).depthwise
    assert not weight_layout(conv(group=4), (8, 1, 3, 3), 0).depthwise  # a channel multiplier pairs products again
    assert not weight_layout(conv(), (4, 1, 3, 3), 0).depthwise


CASES = [
    {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1},
    {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 1], "group": 2},
    {"strides": [1, 2], "pads": [2, 2, 2, 2], "dilations": [2, 1], "group": 4},
]


@pytest.mark.parametrize("case", CASES)
def test_patches_times_the_matrix_is_the_convolution(case: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    groups = int(str(case["group"]))
    weight = rng.normal(size=(8, 4 // groups, 3, 2))
    x = rng.normal(size=(2, 4, 9, 8))
    layout = weight_layout(conv(**case), weight.shape, 0)
    columns = patches(x, layout, 0.0)
    found = layout.to_matrix(weight) @ columns.transpose(0, 2, 1)
    top, left, bottom, right = case["pads"]  # type: ignore[misc] - a list of four numbers
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight), stride=case["strides"], dilation=case["dilations"], groups=groups
    ).numpy()
    assert layout.output_size(9, 8) == expected.shape[2:]
    got = found.reshape(8, 2, *expected.shape[2:]).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(got, expected, atol=1e-12)  # float64 sums of a dozen products


def test_positions_pick_columns() -> None:
    layout = weight_layout(conv(pads=[1, 1, 1, 1]), (4, 3, 3, 3), 0)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    chosen = np.array([0, 7, 49])
    np.testing.assert_array_equal(patches(x, layout, 0.0, chosen), patches(x, layout, 0.0)[:, chosen])


def test_padding_takes_the_value_asked_for() -> None:
    layout = weight_layout(conv(pads=[1, 1, 1, 1]), (1, 1, 3, 3), 0)
    columns = patches(np.zeros((1, 1, 1, 1)), layout, 7.0)
    assert columns[0, 0].tolist() == [7, 7, 7, 7, 0, 7, 7, 7, 7]


def test_a_matrix_has_no_output_size() -> None:
    with pytest.raises(ValueError, match="only a convolution"):
        WeightLayout((2, 3), 0, 1, None).output_size(1, 1)
