"""Every tensor of one graph against the same tensor of another, streamed over inputs.

    drifted   both graphs run by themselves: what has piled up on the way to the tensor
    alone     the layer is fed with the base graph's own tensors: what it adds by itself

Where the new graph was equalised (quantize/equalise.py), the base is scaled alike first: else tensors that the next
layer scales back would look wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.core.ahead import run_ahead
from edgeft.core.errors import DataError
from edgeft.core.events import EventSink, Progress, ignore
from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.parity.align import Pair, align
from edgeft.parity.distance import Distance, Sums
from edgeft.parity.forced import GIVEN, forced
from edgeft.quantize.equalise import kept_factors, scale_alike_
from edgeft.quantize.rows import Rows

ALONE_INPUTS = 16
"""Inputs on which each layer is run alone."""
_Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One aligned tensor.

    Args:
        pair: which.
        drifted: with all errors before it.
        alone: the layer's own.
    """

    pair: Pair
    drifted: Distance
    alone: Distance


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two graphs.

    Args:
        layers: in the base graph's order.
        n: inputs that `drifted` is over.
        runtime: the new graph as the runtime optimises it against the same graph run operator by operator, at the last
            output: rounding of fused kernels, and what they saturate.
    """

    layers: tuple[Layer, ...]
    n: int
    runtime: Distance


def drift(
    base: onnx.ModelProto,
    new: onnx.ModelProto,
    rows: Rows,
    threads: int = 1,
    *,
    pairs: Sequence[Pair] | None = None,
    emit: EventSink = ignore,
) -> dict[str, Distance]:
    """Return tensor -> how far it is in `new` from where it is in `base`, both run by themselves over `rows`.

    Args:
        base: the reference.
        new: under test.
        rows: inputs of both graphs, one at a time.
        threads: how many inputs are worked on at a time.
        pairs: aligned tensors; None aligns them.
        emit: where progress goes.

    Raises:
        DataError: there are no inputs, the graphs do not align, or the base gives NaN or infinity.
    """
    listed = tuple(align(base, new) if pairs is None else pairs)
    if not len(rows):
        raise DataError("there are no inputs to compare the graphs on", hint="give --input DATA")
    names, seen = [pair.name for pair in listed], [pair.seen for pair in listed]
    one, other = (open_session(with_outputs(m, t), 1) for m, t in ((base, names), (new, seen)))

    def run(index: int) -> tuple[list[Any], list[Any]]:
        feeds = one_input(rows, index)
        return one.run(names, feeds), other.run(seen, feeds)

    sums = {pair.name: Sums() for pair in listed}
    for done, (before, after) in enumerate(run_ahead(run, range(len(rows)), threads), start=1):
        _add(sums, listed, before, after)
        emit(Progress("compare tensors", done, len(rows)))
    return {name: total.distance() for name, total in sums.items()}


def compare(
    base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, threads: int = 1, *, emit: EventSink = ignore
) -> Comparison:
    """Return how far every layer of `new` is from `base`; for arguments and errors see `drift`."""
    base = scaled_alike(base, new)
    pairs = align(base, new)
    drifted = drift(base, new, rows, threads, pairs=pairs, emit=emit)
    alone = _alone(base, new, rows, pairs, emit)
    layers = tuple(Layer(pair, drifted[pair.name], alone[pair.name]) for pair in pairs)
    return Comparison(layers, len(rows), _runtime(new, rows))


def scaled_alike(base: onnx.ModelProto, new: onnx.ModelProto) -> onnx.ModelProto:
    """Return `base` with the equalisation that `new` went through; itself where there was none.

    Raises:
        QuantizationError: `new` was made of another graph.
    """
    factors = kept_factors(new)
    if not factors:
        return base
    model = ir.from_proto(base)
    scale_alike_(model, factors)
    return ir.to_proto(model)


def alone_batches(
    base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, pairs: Sequence[Pair]
) -> Iterator[tuple[list[NDArray[Any]], list[NDArray[Any]], _Arrays]]:
    """Yield (base tensors, the same from each layer alone, what the layers were fed) for the first inputs."""
    names, seen = [pair.name for pair in pairs], [pair.seen for pair in pairs]
    model = forced(new, pairs)
    given = {value.name for value in model.graph.input}
    one, other = open_session(with_outputs(base, names), 1), open_session(model, 1, optimise=False)
    for index in range(min(ALONE_INPUTS, len(rows))):
        feeds = one_input(rows, index)
        before = one.run(names, feeds)
        fed = {name: x for name, x in feeds.items() if name in given}
        fed |= {f"{name}{GIVEN}": x for name, x in zip(names, before, strict=True) if f"{name}{GIVEN}" in given}
        yield before, other.run(seen, fed), fed


def _alone(
    base: onnx.ModelProto, new: onnx.ModelProto, rows: Rows, pairs: Sequence[Pair], emit: EventSink
) -> dict[str, Distance]:
    sums = {pair.name: Sums() for pair in pairs}
    for done, (before, after, _) in enumerate(alone_batches(base, new, rows, pairs), start=1):
        _add(sums, pairs, before, after)
        emit(Progress("run layers alone", done, min(ALONE_INPUTS, len(rows))))
    return {name: total.distance() for name, total in sums.items()}


def _runtime(new: onnx.ModelProto, rows: Rows) -> Distance:
    name = new.graph.output[0].name
    fused, plain = open_session(new, 1), open_session(new, 1, optimise=False)
    total = Sums()
    for index in range(min(ALONE_INPUTS, len(rows))):
        feeds = one_input(rows, index)
        expected = plain.run([name], feeds)[0]
        if np.isfinite(expected).all():  # of a graph that gives NaN the layer alone tells
            total.add_(expected, fused.run([name], feeds)[0])
    return total.distance()


def _add(
    sums: Mapping[str, Sums], pairs: Sequence[Pair], before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]
) -> None:
    for pair, x, y in zip(pairs, before, after, strict=True):
        try:
            sums[pair.name].add_(x, y)
        except DataError as error:
            raise DataError(f"{pair.name}: {error.message}", hint=error.hint) from error


def one_input(rows: Rows, index: int) -> dict[str, NDArray[Any]]:
    """Return row `index` as the graphs take it, arrays [1, ...] by input name."""
    return {name: np.ascontiguousarray(values) for name, values in rows[index : index + 1].items()}
