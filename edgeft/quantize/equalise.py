"""Cross-layer equalisation: between two convolutions, give each channel its share of the one scale that they have.

    W2 * act(W1 x + b1)   ==   (W2 s) * act((W1 x + b1) / s)         per channel, s > 0

Exact where act is nothing or Relu. Clip(0, u) allows s <= 1, as far as the channel stays below u: what lies beyond
the largest value of calibration by more than a tenth is clipped then. A depthwise convolution has a weight scale for
each channel, so there every channel is stretched to the whole range; any other reader pays for it with coarser weights,
and s is where both roundings together cost least (smooth.py). Source: Nagel et al. 2019, section 4.1.

The factors travel in the quantized model's metadata, so that whoever compares it with the float graph, tensor by
tensor, can scale that one alike.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.core.events import EventSink, ignore
from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.quantize.affine import Doubles, Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.plan import clip_limits, constant
from edgeft.quantize.rows import Rows, tensors_of
from edgeft.quantize.smooth import smoothing

_HEADROOM = 1.1
"""Under a Clip, a channel's largest value on calibration data is taken to be this much larger."""
_METADATA = "edgeft.equalised"
_SMALLEST = 1 / 64
"""A channel that is next to dead is not stretched by more than this."""


@dataclass(frozen=True, slots=True)
class Junction:
    """Two convolutions and what stands between them.

    Args:
        before: the convolution that makes the channels.
        tensor: what `after` reads, [N, C, H, W].
        upper: of the Clip between them, infinite where there is none.
        after: the only reader.
    """

    before: ir.Node
    tensor: ir.Value
    upper: float
    after: ir.Node


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Of a tensor [N, C, H, W], by channel: the least and the largest value, float32 [C], and E[x^2], float64 [C]."""

    low: Floats
    high: Floats
    squares: Doubles


def equalise_(model: ir.Model, rows: Rows, execution: Execution, emit: EventSink = ignore) -> dict[str, Floats]:
    """Equalise every junction of `model`, a float graph; return tensor -> s of those that changed.

    Args:
        model: changed in place: weights and biases only.
        rows: calibration inputs.
        execution: threads and batch.
        emit: where progress goes.
    """
    junctions = tuple(find_junctions(model))
    if not junctions:
        return {}
    found = _statistics(model, [str(junction.tensor.name) for junction in junctions], rows, execution, emit)
    changed = {}
    for junction in junctions:
        s = _channel_factors(junction, found[str(junction.tensor.name)])
        if (s != 1).any():
            _apply_(junction, s)
            changed[str(junction.tensor.name)] = s
    return changed


def scale_alike_(model: ir.Model, factors: Mapping[str, Floats]) -> None:
    """Scale the junctions of `model`, a float graph, by `factors` of another one's `equalise_`.

    Raises:
        QuantizationError: it has no such junction, or one of other channels.
    """
    by_name = {str(junction.tensor.name): junction for junction in find_junctions(model)}
    for tensor, s in factors.items():
        junction = by_name.get(tensor)
        made = None if junction is None else constant(junction.before.inputs[1])
        if junction is None or made is None or len(made) != len(s):
            raise QuantizationError(
                f"{tensor} was equalised in the quantized model, and this float graph has no such tensor"
            )
        _apply_(junction, s)


def keep_factors_(model: onnx.ModelProto, factors: Mapping[str, Floats]) -> None:
    """Write `factors` into the metadata of `model`; none leave it as it is."""
    if factors:
        texts = {tensor: base64.b64encode(s.astype("<f4").tobytes()).decode() for tensor, s in factors.items()}
        model.metadata_props.add(key=_METADATA, value=json.dumps(texts))


def kept_factors(model: onnx.ModelProto) -> dict[str, Floats]:
    """Return tensor -> s, float32 [C], from the metadata of `model`; empty where nothing was equalised.

    Raises:
        QuantizationError: the metadata is damaged.
    """
    found = [entry.value for entry in model.metadata_props if entry.key == _METADATA]
    try:
        texts = json.loads(found[0]) if found else {}
        return {tensor: np.frombuffer(base64.b64decode(text), "<f4") for tensor, text in texts.items()}
    except (ValueError, AttributeError) as error:
        raise QuantizationError(f"the model's metadata {_METADATA} is damaged ({error})") from error


def find_junctions(model: ir.Model) -> Iterator[Junction]:
    """Yield the junctions of `model` in order: two plain convolutions, and nothing else reads what is between them."""
    for node in model.graph:
        tensor = node.inputs[0] if _is_plain_conv(node) else None
        if tensor is None or not _is_private(tensor):
            continue
        producer, upper = tensor.producer(), np.inf
        limits = None if producer is None else clip_limits(producer)
        if producer is not None and limits is not None:
            lower, upper = limits
            value = producer.inputs[0]
            producer = value.producer() if lower == 0 and value is not None and _is_private(value) else None
        if producer is not None and _is_plain_conv(producer):
            yield Junction(producer, tensor, float(upper), node)


def _is_plain_conv(node: ir.Node) -> bool:
    """Return whether `node` is a 2-D Conv with constant float weights, of one group or depthwise."""
    weight = constant(node.inputs[1]) if node.op_type == "Conv" and node.domain in DEFAULT_DOMAINS else None
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32:  # noqa: PLR2004 - [O, C, kh, kw]
        return False
    groups = node.attributes.get_int("group", 1)
    readable = groups == 1 or (weight.shape[1] == 1 and groups == weight.shape[0])
    own = [value for value in node.inputs[1:] if value is not None]
    return readable and all(constant(value) is not None and _is_private(value) for value in own)


def _is_private(value: ir.Value) -> bool:
    return len(value.consumers()) == 1 and not value.is_graph_output()


def _statistics(
    model: ir.Model, tensors: list[str], rows: Rows, execution: Execution, emit: EventSink
) -> dict[str, ChannelStatistics]:
    lows: dict[str, Floats] = {}
    highs: dict[str, Floats] = {}
    sums: dict[str, Doubles] = {}
    one_by_one = replace(execution, batch=1)  # all tensors of an image are alive together
    for image in tensors_of(ir.to_proto(model), tensors, rows, one_by_one, emit, "equalise"):
        for name, x in zip(tensors, image, strict=True):  # [k, C, H, W], where k windows of an image are in one batch
            lows[name] = np.minimum(lows.get(name, np.float32(np.inf)), x.min(axis=(0, 2, 3)))
            highs[name] = np.maximum(highs.get(name, np.float32(-np.inf)), x.max(axis=(0, 2, 3)))
            squares = np.einsum("nchw,nchw->c", x, x, dtype=np.float64) / x[:, 0].size
            sums[name] = sums[name] + squares if name in sums else squares
    return {name: ChannelStatistics(lows[name], highs[name], sums[name] / len(rows)) for name in tensors}


def _channel_factors(junction: Junction, found: ChannelStatistics) -> Floats:
    """Return s, float32 [C]: what each channel is divided by, at most 1."""
    largest = np.maximum(np.abs(found.low), np.abs(found.high))
    top = largest.max(initial=0)
    if not np.isfinite(top) or top == 0:
        return np.ones(len(largest), np.float32)
    weight = np.asarray(constant(junction.after.inputs[1]))
    if junction.after.attributes.get_int("group", 1) == 1:
        by_channel = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
        s = smoothing(by_channel, found.squares, found.low, found.high)
    else:
        s = (largest / top).astype(np.float32)
    least = np.full(len(s), _SMALLEST)
    if np.isfinite(junction.upper):
        reach = found.high * _HEADROOM / junction.upper
        least = np.where(reach >= 1, 1.0, np.maximum(least, reach))
    factors: Floats = np.clip(s, least, 1.0).astype(np.float32)
    return factors


def _apply_(junction: Junction, s: Floats) -> None:
    before, after = junction.before, junction.after
    column = s.reshape(-1, 1, 1, 1)
    _scale_(before.inputs[1], 1 / column)
    if len(before.inputs) > 2 and before.inputs[2] is not None:  # noqa: PLR2004 - optional third input
        _scale_(before.inputs[2], 1 / s)
    depthwise = after.attributes.get_int("group", 1) != 1
    _scale_(after.inputs[1], column if depthwise else s.reshape(1, -1, 1, 1))


def _scale_(value: ir.Value | None, factors: NDArray[np.floating[Any]]) -> None:
    if value is None:
        return
    array = np.asarray(constant(value)) * factors
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
