"""The two ends of a deployment graph: uint8 pixels in, calibrated scores out.

    x      = (pixels - mean) / std                         float32 [N, C, H, W] from uint8 [N, H, W, C]
    scores = softmax(logits / temperature, axis = 1)       float32 [N, K]

Where mean and std are the same for all channels and the mean is an integer pixel value, the normalisation is
DequantizeLinear(scale = 1 / std, zero_point = mean): the pixels are already the quantized input of the first layer. It
equals (pixels - mean) / std exactly where std is a power of two and within one float32 rounding elsewhere. Otherwise it
is Cast, Sub, Div.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeft.core.errors import EdgeftError
from edgeft.graph.passes.surgery import typed_node

PIXELS, LOGITS, TEMPERATURE, SCORES = "pixels", "logits", "temperature", "scores"
_PIXEL_MAX = 255
_IMAGE_RANK = 4
_LOGITS_RANK = 2


def take_pixels_(model: ir.Model, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make `pixels` uint8 [N, H, W, C] the input of `model`, which so far takes normalised float32 [N, C, H, W].

    Args:
        model: a graph with one image input whose C, H and W are fixed.
        mean: per channel, in pixel units (0 to 255).
        std: per channel, in pixel units.

    Raises:
        EdgeftError: the input is no float32 image batch of fixed size, or has other than `len(mean)` channels.
    """
    graph = model.graph
    x = graph.inputs[0]
    batch, channels, height, width = _image_shape(x, len(graph.inputs), len(mean))
    pixels = ir.val(PIXELS, dtype=ir.DataType.UINT8, shape=ir.Shape([batch, height, width, channels]))
    shape = ir.Shape([batch, channels, height, width])
    transpose = typed_node(f"{PIXELS}/Transpose", "Transpose", [pixels], ir.DataType.UINT8, shape, perm=[0, 3, 1, 2])
    nodes = [transpose, *_normalise(graph, transpose.outputs[0], width, mean, std)]
    x.replace_all_uses_with(nodes[-1].outputs[0])
    graph.inputs[0] = pixels
    graph.insert_before(graph[0], nodes)


def give_scores_(model: ir.Model) -> None:
    """Name the output of `model` `logits`, and make `scores` = softmax(logits / temperature) its output, temperature 1.

    Raises:
        EdgeftError: the model has other than one float output of shape [N, K].
    """
    graph = model.graph
    logits = graph.outputs[0]
    if len(graph.outputs) != 1 or logits.shape is None or len(logits.shape) != _LOGITS_RANK:
        found = ", ".join(f"{value.name} {value.shape}" for value in graph.outputs)
        raise EdgeftError(f"a classifier returns one tensor [N, K]; the exported model returns {found}")
    logits.name = LOGITS
    temperature = _constant(graph, TEMPERATURE, np.float32(1.0))
    divide = typed_node(f"{LOGITS}/Div", "Div", [logits, temperature], ir.DataType.FLOAT, logits.shape)
    softmax = typed_node(SCORES, "Softmax", [divide.outputs[0]], ir.DataType.FLOAT, logits.shape, axis=1)
    graph.extend([divide, softmax])
    graph.outputs[0] = softmax.outputs[0]


def _image_shape(x: ir.Value, inputs: int, channels: int) -> tuple[int | ir.SymbolicDim, int, int, int]:
    shape = x.shape
    if inputs != 1 or x.dtype != ir.DataType.FLOAT or shape is None or len(shape) != _IMAGE_RANK:
        raise EdgeftError(f"expected one float32 image input [N, C, H, W], found {inputs} of {x.dtype} {shape}")
    batch, *sizes = shape
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) != len(sizes) or fixed[0] != channels:
        raise EdgeftError(f"expected an input [N, {channels}, H, W] with fixed H and W, found {shape}")
    return batch, fixed[0], fixed[1], fixed[2]


def _normalise(graph: ir.Graph, x: ir.Value, width: int, mean: Sequence[float], std: Sequence[float]) -> list[ir.Node]:
    """Return the nodes that turn uint8 `x` [N, C, H, W] into (x - mean) / std."""

    def node(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Node:
        return typed_node(f"{PIXELS}/{op_type}", op_type, inputs, ir.DataType.FLOAT, x.shape, **attributes)

    if is_quantization(mean, std):
        scale = _constant(graph, "pixels.scale", np.float32(1 / std[0]))
        zero_point = _constant(graph, "pixels.zero_point", np.uint8(mean[0]))
        return [node("DequantizeLinear", x, scale, zero_point)]
    cast = node("Cast", x, to=ir.DataType.FLOAT)
    sub = node("Sub", cast.outputs[0], _constant(graph, "pixels.mean", _row(mean, width)))
    return [cast, sub, node("Div", sub.outputs[0], _constant(graph, "pixels.std", _row(std, width)))]


def _row(values: Sequence[float], width: int) -> np.ndarray:
    """Return one value for each channel as float32 [C, 1, W].

    As wide as the image, because onnxruntime may run Sub and Div on [H, W, C] ahead of an integer convolution: there it
    takes 13 times as long to repeat C values H * W times as C * W values H times.
    """
    column = np.asarray(values, np.float32).reshape(-1, 1, 1)
    return np.ascontiguousarray(np.broadcast_to(column, (len(values), 1, width)))


def is_quantization(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether (pixel - mean) / std is DequantizeLinear of the uint8 pixel itself."""
    return len(set(mean)) == len(set(std)) == 1 and mean[0] == int(mean[0]) and 0 <= mean[0] <= _PIXEL_MAX


def _constant(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(np.asarray(array), name=name))
    graph.register_initializer(value)
    return value
