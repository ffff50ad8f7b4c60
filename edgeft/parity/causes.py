"""What kind of fault a layer shows, and the one command that is expected to mend it.

A layer is at fault where it alone, on exact inputs, is further from the base than rounding explains: in a float graph
anything below FLOAT_DB, in a quantized layer what no rounding to its own grid does. The first that fits is told:

    not finite     NaN or infinity comes out
    dead           channels that vary in the base are constant
    channel order  it fits the base once the input's colours are reversed
    output order   the outputs are the base's in another order
    saturation     its weights break the pair rule: int16 sums of CPUs without VNNI saturate
    clipping       the error lies where the quantized range ends
    scale          a gain explains the error
    zero point     an offset explains it, by whole steps of its grid
    rounding       none of these, in a quantized layer
    weights        none of these, in a float layer: other weights, or another operator
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.parity.align import Pair
from edgeft.parity.distance import Distance, Sums
from edgeft.parity.forced import GIVEN, forced
from edgeft.parity.grids import Grid, grids
from edgeft.parity.layers import ALONE_INPUTS, Comparison, Layer, alone_batches, one_input, scaled_alike
from edgeft.quantize.layout import weight_layout
from edgeft.quantize.pair_rule import unsafe_pairs
from edgeft.quantize.plan import constant
from edgeft.quantize.rows import Rows

FLOAT_DB = 60.0
"""Float sums in another order, folded BatchNorms: 100 dB and more. Below this something else was computed."""
ROUNDING_DB = 17.0
"""Of a quantized layer on exact inputs: on Lite0 8 bits leave 21 to 47 dB, with clipped (entropy) ranges 18."""
_EXPLAINED = 0.8
_GAIN, _STEPS = 0.02, 0.4
_MENDED_DB = 10.0
_AT_EDGE = 0.5
_CHANNELS = 3
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer at fault.

    Args:
        layer: the operator.
        tensor: what it makes.
        kind: see the module.
        detail: what was measured.
        advice: what mends it.
        sqnr_db: of the layer alone.
        output_db: SQNR of the graph's last aligned tensor now, on the first few inputs.
        predicted_db: what it is there with this layer exact and all others as they are.
    """

    layer: str
    tensor: str
    kind: str
    detail: str
    advice: str
    sqnr_db: float
    output_db: float
    predicted_db: float


def diagnose(
    base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, found: Comparison, most: int = 5
) -> tuple[Finding, ...]:
    """Return the layers at fault, the worst first, at most `most`; none where all is rounding as it should be.

    Args:
        base: the reference.
        new: under test.
        rows: inputs.
        found: `compare` of the two on these inputs.
        most: findings.
    """
    base = scaled_alike(base, new)
    of, nodes = grids(new), {node.name: node for node in ir.from_proto(new).graph}
    suspects = [layer for layer in found.layers if _suspect(layer, of.get(layer.pair.seen))]
    suspects.sort(key=lambda layer: (layer.alone.nonfinite == 0, layer.alone.sqnr_db))
    if not suspects:
        return ()
    taken = suspects[:most]
    samples = _samples(base, new, rows, [layer.pair for layer in found.layers], {layer.pair.name for layer in taken})
    last = found.layers[-1].pair
    now_db = _distance(base, new, rows, last, dict).sqnr_db
    findings = []
    for layer in taken:
        x, y = samples[layer.pair.name]
        reversed_db = _reversed_colours(base, new, rows, layer.pair)
        unsafe = _unsafe(nodes.get(layer.pair.layer))
        kind, detail = next(_kinds(layer, x, y, of.get(layer.pair.seen), unsafe, reversed_db))
        findings.append(
            Finding(
                layer.pair.layer,
                layer.pair.name,
                kind,
                detail,
                _ADVICE[kind].format(layer=layer.pair.layer),
                layer.alone.sqnr_db,
                now_db,
                _mended(base, new, rows, layer.pair, last).sqnr_db,
            )
        )
    return tuple(findings)


_ADVICE = {
    "not finite": "look at the weights of {layer} and at what they were trained with; then export again: edgeft build",
    "dead": "take the weights of {layer} from the checkpoint again: edgeft build",
    "channel order": "give images in RGB (from OpenCV: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), or build again with "
    "edgeft build, which decodes for training and device alike",
    "output order": "freeze one order of classes: build again with edgeft build, which checks it at every hop",
    "saturation": "make pair-safe weights: edgeft quantize BASE.onnx --calib DATA",
    "scale": "quantize or export {layer} again: edgeft quantize BASE.onnx --calib DATA",
    "zero point": "quantize {layer} again: edgeft quantize BASE.onnx --calib DATA",
    "clipping": "calibrate on images as they come, or with wider ranges: edgeft quantize BASE.onnx --calib DATA "
    "--method minmax",
    "rounding": "leave more in float around {layer}: edgeft quantize BASE.onnx --calib DATA --float-share 0.35",
    "weights": "{layer} does not hold the base's weights (an adapter that was not merged, an older checkpoint): export "
    "it again from the checkpoint that BASE is from: edgeft build",
}


def _suspect(layer: Layer, grid: Grid | None) -> bool:
    alone = layer.alone
    if alone.nonfinite:
        return True
    if alone.sqnr_db < ROUNDING_DB or (grid is None and not layer.pair.integer and alone.sqnr_db < FLOAT_DB):
        return True
    return grid is not None and alone.affine_share > _AT_EDGE and abs(alone.offset) > _STEPS * grid.scale


def _kinds(
    layer: Layer,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    grid: Grid | None,
    unsafe: int,
    reversed_db: float | None,
) -> Iterator[tuple[str, str]]:
    """Yield each kind of fault that fits, with what was measured, the most certain first."""
    alone = layer.alone
    if alone.nonfinite:
        yield "not finite", f"{alone.nonfinite} values are NaN or infinite on exact inputs"
    if dead := _dead(x, y):
        yield "dead", f"{dead} of {x.shape[1]} channels are constant and vary in the base"
    if reversed_db is not None and reversed_db > alone.sqnr_db + _MENDED_DB:
        yield "channel order", f"{alone.sqnr_db:.1f} dB as it is, {reversed_db:.1f} dB with the colours reversed"
    if (order := _order(x, y)) is not None:
        yield "output order", f"its outputs are the base's in the order {order}"
    if unsafe:
        yield "saturation", f"{unsafe} pairs of its weights can saturate; {alone.sqnr_db:.1f} dB where sums are exact"
    share = 0.0 if grid is None else _clipped(x, y, grid)
    if share > _AT_EDGE:
        yield "clipping", f"{share:.0%} of its error lies beyond the range of its 8 bits"
    if alone.affine_share > _EXPLAINED and abs(alone.gain - 1) > _GAIN:
        yield "scale", f"its output is {alone.gain:.3g} times the base's, which explains {alone.affine_share:.0%}"
    if grid is not None and alone.affine_share > _AT_EDGE and abs(alone.offset) > _STEPS * grid.scale:
        steps = alone.offset / grid.scale
        yield "zero point", f"its output is off by {steps:+.2f} steps, which explains {alone.affine_share:.0%}"
    if grid is None and not layer.pair.integer:
        yield "weights", f"{alone.sqnr_db:.1f} dB on exact inputs, where float rounding leaves more than {FLOAT_DB:g}"
    yield "rounding", f"{alone.sqnr_db:.1f} dB on exact inputs"


def _samples(
    base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, pairs: Sequence[Pair], wanted: set[str]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return tensor -> (base, layer alone), float64 [n, C, ...]."""
    parts: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {name: [] for name in wanted}
    for before, after, _ in alone_batches(base, new, rows, pairs):
        for pair, x, y in zip(pairs, before, after, strict=True):
            if pair.name in wanted:
                parts[pair.name].append((x, y))
    return {name: (_stacked([x for x, _ in found]), _stacked([y for _, y in found])) for name, found in parts.items()}


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return arrays [1, ...] as one, float64 [n, ...]; texts of other lengths are cut to the shortest."""
    smallest = np.min([array.shape[1:] for array in arrays], axis=0)
    cut = (slice(None), *(slice(int(size)) for size in smallest))
    return np.concatenate([array[cut] for array in arrays]).astype(np.float64)


def _dead(x: NDArray[np.float64], y: NDArray[np.float64]) -> int:
    """Return how many channels of `y` [n, C, ...] are constant although those of `x` are not.

    0 where less than half of the squared error lies in them: small channels may well round to one value.
    """
    if x.ndim < _MATRIX:
        return 0
    before, after = (np.moveaxis(side, 1, 0).reshape(side.shape[1], -1) for side in (x, y))
    error = np.square(after - before).sum(axis=1)
    dead = (np.ptp(after, axis=1) == 0) & (np.ptp(before, axis=1) > 0)
    return int(dead.sum()) if error[dead].sum() > _AT_EDGE * error.sum() else 0


def _order(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int] | None:
    """Return where each column of `y` [n, K] is in `x`, where that is another order and fits; else None."""
    if x.ndim != _MATRIX or x.shape[1] < _MATRIX or len(x) < _MATRIX:
        return None
    distance = np.square(y[:, :, None] - x[:, None, :]).sum(axis=0)
    order = distance.argmin(axis=1)
    if sorted(order.tolist()) != list(range(x.shape[1])) or order.tolist() == list(range(x.shape[1])):
        return None
    now, then = np.square(y - x).sum(), np.square(y - x[:, order]).sum()
    return order.tolist() if then * 10 ** (_MENDED_DB / 10) < now else None


def _clipped(x: NDArray[np.float64], y: NDArray[np.float64], grid: Grid) -> float:
    """Return the share of the squared error where `x` lies beyond the grid."""
    error = np.square(y - x)
    outside = (x > grid.high + grid.scale / 2) | (x < grid.low - grid.scale / 2)
    total = float(error.sum())
    return float(error[outside].sum()) / total if total else 0.0


def _reversed_colours(base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, pair: Pair) -> float | None:
    """Return the SQNR of `pair` with the colours of `new`'s input reversed; None where that is no image."""
    inputs = [value.name for value in new.graph.input]
    first = rows[0:1]
    if len(first) != 1 or not set(pair.sources) <= {*inputs, *_front(base)}:
        return None
    ((name, pixels),) = first.items()
    axis = next((axis for axis in (-1, 1) if pixels.ndim > _CHANNELS and pixels.shape[axis] == _CHANNELS), None)
    if axis is None:
        return None
    return _distance(
        base, new, rows, pair, lambda feeds: {name: np.ascontiguousarray(np.flip(feeds[name], axis))}
    ).sqnr_db


def _front(model: onnx.ModelProto) -> set[str]:
    """Return the tensors before the first weighted operator."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            break
        found.update(node.output)
    return found


def _distance(
    base: onnx.ModelProto,
    new: onnx.ModelProto,
    rows: Rows,
    pair: Pair,
    change: Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]],
) -> Distance:
    one = open_session(with_outputs(base, [pair.name]), 1)
    other = open_session(with_outputs(new, [pair.seen]), 1)
    total = Sums()
    for index in range(min(ALONE_INPUTS, len(rows))):
        feeds = one_input(rows, index)
        total.add_(one.run([pair.name], feeds)[0], other.run([pair.seen], dict(change(feeds)))[0])
    return total.distance()


def _mended(base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, pair: Pair, last: Pair) -> Distance:
    """Return how far the output is with `pair` taken from the base and everything behind it as it is."""
    if pair.name == last.name:
        return Sums().distance()
    model = forced(new, [pair])
    model.graph.output.append(onnx.helper.make_tensor_value_info(last.seen, onnx.TensorProto.FLOAT, None))
    one = open_session(with_outputs(base, [pair.name, last.name]), 1)
    other = open_session(model, 1)
    given = {value.name for value in model.graph.input}
    total = Sums()
    for index in range(min(ALONE_INPUTS, len(rows))):
        feeds = one_input(rows, index)
        exact, expected = one.run([pair.name, last.name], feeds)
        fed = {name: x for name, x in feeds.items() if name in given} | {f"{pair.name}{GIVEN}": exact}
        total.add_(expected, other.run([last.seen], fed)[0])
    return total.distance()


def _unsafe(node: ir.Node | None) -> int:
    """Return how many pairs of the integer weights of `node` can saturate; depthwise ones never pair."""
    feed = None if node is None or len(node.inputs) < _MATRIX else node.inputs[1]
    maker = None if feed is None else feed.producer()
    values = None if maker is None or maker.op_type != "DequantizeLinear" else constant(maker.inputs[0])
    if node is None or values is None or values.dtype != np.int8:
        return 0
    rows_first = node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0))
    layout = weight_layout(node, values.shape, 0 if rows_first else values.ndim - 1)
    return 0 if layout.depthwise else unsafe_pairs(layout.to_matrix(values))
