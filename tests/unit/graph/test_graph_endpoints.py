import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from edgeft.core.errors import EdgeftError
from edgeft.graph.endpoints import give_scores_, is_quantization, take_pixels_

_IDENTITY = '<ir_version: 9, opset_import: ["" : 20]> g (float[N,3,2,2] x) => (float[N,3,2,2] y) { y = Abs(x) }'
_HEAD = '<ir_version: 9, opset_import: ["" : 20]> g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }'
_PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3) * 10


def model_of(text: str) -> ir.Model:
    return ir.from_proto(parser.parse_model(text))


def outputs(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]


@pytest.mark.parametrize(
    ("mean", "std", "operators"),
    [
        ((127.0,) * 3, (128.0,) * 3, ["Transpose", "DequantizeLinear", "Abs"]),
        ((0.0,) * 3, (255.0,) * 3, ["Transpose", "DequantizeLinear", "Abs"]),
        ((127.5,) * 3, (127.5,) * 3, ["Transpose", "Cast", "Sub", "Div", "Abs"]),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), ["Transpose", "Cast", "Sub", "Div", "Abs"]),
    ],
)
def test_pixels_are_normalised_inside(mean: tuple[float, ...], std: tuple[float, ...], operators: list[str]) -> None:
    model = model_of(_IDENTITY)
    take_pixels_(model, mean, std)
    assert [node.op_type for node in model.graph] == operators
    expected = np.abs((_PIXELS.astype(np.float64) - mean) / std).transpose(0, 3, 1, 2)
    # two float32 roundings of values up to 4.4
    np.testing.assert_allclose(outputs(model, {"pixels": _PIXELS}), expected, atol=1e-6)


def test_normalisation_repeats_rows_not_pixels() -> None:
    model = model_of(_IDENTITY)
    take_pixels_(model, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    for name in ("pixels.mean", "pixels.std"):
        values = model.graph.initializers[name].const_value
        assert values is not None
        assert values.shape == (3, 1, 2)  # a row of the image wide


def test_normalisation_by_a_power_of_two_is_exact() -> None:
    model = model_of(_IDENTITY)
    take_pixels_(model, (127.0,) * 3, (128.0,) * 3)
    expected = np.abs((_PIXELS.astype(np.float32) - np.float32(127)) / np.float32(128)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(outputs(model, {"pixels": _PIXELS}), expected)


def test_pixels_have_fixed_height_width_and_open_batch() -> None:
    model = model_of(_IDENTITY)
    take_pixels_(model, (127.0,) * 3, (128.0,) * 3)
    (pixels,) = model.graph.inputs
    assert (pixels.name, pixels.dtype, str(pixels.shape)) == ("pixels", ir.DataType.UINT8, "[N,2,2,3]")


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((127,) * 3, (128,) * 3, True),
        ((127, 127, 126), (128,) * 3, False),
        ((127,) * 3, (128, 128, 127), False),
        ((127.5,) * 3, (127.5,) * 3, False),
        ((-1,) * 3, (1,) * 3, False),
        ((256,) * 3, (1,) * 3, False),
    ],
)
def test_is_quantization(mean: tuple[float, ...], std: tuple[float, ...], expected: bool) -> None:  # noqa: FBT001 - a parametrised value
    assert is_quantization(mean, std) is expected


@pytest.mark.parametrize("signature", ["float[N,4,2,2] x", "float[N,3,H,W] x", "float[N,3] x", "uint8[N,3,2,2] x"])
def test_inputs_that_are_no_fixed_rgb_image_are_refused(signature: str) -> None:
    text = f'<ir_version: 9, opset_import: ["" : 20]> g ({signature}) => (float[N] y) {{ y = Foo(x) }}'
    with pytest.raises(EdgeftError, match="expected"):
        take_pixels_(model_of(text), (127.0,) * 3, (128.0,) * 3)


def test_scores_are_the_softmax_of_logits_over_temperature() -> None:
    model = model_of(_HEAD)
    give_scores_(model)
    model.graph.initializers["temperature"].const_value = ir.tensor(np.float32(2), name="temperature")
    x = np.array([[1, 2, 3], [0, 0, 5]], np.float32)
    powers = np.exp(-x / 2.0)
    # a softmax in float32
    np.testing.assert_allclose(outputs(model, {"x": x}), powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    assert [value.name for value in model.graph.outputs] == ["scores"]
    assert model.graph.node("logits/Div").inputs[0].name == "logits"


def test_temperature_starts_at_one() -> None:
    model = model_of(_HEAD)
    give_scores_(model)
    value = model.graph.initializers["temperature"].const_value
    assert value is not None
    assert value.numpy() == np.float32(1)
    assert value.shape == ()


def test_a_model_without_one_matrix_of_logits_is_refused() -> None:
    with pytest.raises(EdgeftError, match=r"one tensor \[N, K\]; the exported model returns y \[N,3,2,2\]"):
        give_scores_(model_of(_IDENTITY))
