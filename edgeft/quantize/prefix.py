"""A graph's prefix: everything before one operator, run once, in order.

Only tensors that later operators still read are kept: integers as they are, floats in half precision, whose rounding
is far below that of 8 bits (of values that it holds). A large tensor that is larger than what it is computed from is
not kept but computed again on the way to the next: the widest tensors inside a mobile net's block are never held for
all images at once.

What is kept stays split as it was computed, for an operator may fold another axis into the first: [N * L, C].
"""

from collections.abc import Container, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgeft.quantize.affine import Integers
from edgeft.quantize.calibration import Execution, Pixels, make_session

_LARGEST_HALF = float(np.finfo(np.float16).max)
HALF_HOLDS = 2.0**-12, 2.0**12
"""Largest magnitudes of a tensor that half precision holds with 8 bits to spare, and room for what was not seen."""
_MOST_STREAMED = 2
"""Tensors in a row that are computed again rather than kept."""
SMALL = 16 << 20
"""Bytes for all images up to which a tensor is kept in any case."""


class Prefix:
    """Advances through a graph, from one tensor to the next.

    Args:
        model: the graph; its weights up to the tensor asked for must be final.
        targets: the tensors that will be asked for, in order.
        pixels: uint8 [N, ...], what the graph takes.
        execution: threads and batch.
        wide: names of float tensors that half precision does not hold; these are kept in float32.
    """

    def __init__(
        self,
        model: ir.Model,
        targets: Sequence[ir.Value],
        pixels: Pixels,
        execution: Execution,
        wide: Container[str] = (),
    ) -> None:
        self._model = model
        self._wide = wide
        self._remaining = list(targets)
        self._execution = execution
        starts = range(0, len(pixels), execution.batch)
        chunks = [pixels[start : start + execution.batch] for start in starts]
        self._live: dict[ir.Value, list[Integers]] = {model.graph.inputs[0]: chunks}
        self._streamed = 0

    def advance(self, target: ir.Value) -> Iterator[Integers]:
        """Yield `target` a batch at a time; targets must be asked for in the order given, each to its end."""
        yield from self._live[target] if target in self._live else self._compute(target)
        self._remaining.remove(target)
        needed = self._boundary(self._remaining)
        self._live = {value: chunks for value, chunks in self._live.items() if value in needed}

    def _compute(self, target: ir.Value) -> Iterator[Integers]:
        """Yield `target` a batch at a time, and keep it unless it is larger than what it is computed from."""
        sources = self._boundary([target])
        graph = ir.convenience.extract(self._model.graph, list(sources), [target])
        _keep_halves_(
            graph, {str(source.name) for source in sources if self._live[source][0].dtype == np.float16}, self._wide
        )
        model = ir.Model(graph, ir_version=self._model.ir_version)
        session = make_session(model, self._execution.threads, optimise=self._execution.optimise)
        kept: list[Integers] = []
        for index, chunk in enumerate(zip(*(self._live[source] for source in sources), strict=True)):
            feeds = {f.name: np.ascontiguousarray(part) for f, part in zip(session.get_inputs(), chunk, strict=True)}
            part = session.run(None, feeds)[0]
            if not index:
                small = part.nbytes <= max(SMALL // len(self._live[sources[0]]), *(array.nbytes for array in chunk))
                self._streamed = 0 if small or self._streamed == _MOST_STREAMED else self._streamed + 1
            if not self._streamed:
                kept.append(part)
            yield part
        if kept:
            self._live[target] = kept

    def _boundary(self, targets: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the live tensors from which all of `targets` can be computed."""
        found: dict[ir.Value, None] = {}
        seen: set[ir.Value] = set()
        stack = list(targets)
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            producer = value.producer()
            if value in self._live:
                found.setdefault(value)
            elif producer is not None:
                stack.extend(source for source in producer.inputs if source is not None)
        return list(found)


def _keep_halves_(graph: ir.Graph, halves: Container[str], wide: Container[str]) -> None:
    """Make the inputs `halves` and the float outputs of `graph`, but `wide`, float16; what exceeds it saturates."""
    limits = []
    for name, bound in (("half::low", -_LARGEST_HALF), ("half::high", _LARGEST_HALF)):
        limits.append(ir.Value(name=name, const_value=ir.tensor(np.float32(bound), name=name)))
    for index, value in enumerate(graph.inputs):
        if value.name in halves:
            half = ir.Value(name=f"{value.name}::half", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16))
            cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
            value.replace_all_uses_with(cast.outputs[0])
            graph.inputs[index] = half
            graph.insert_before(graph[0], [cast])
    for index, value in enumerate(graph.outputs):
        if value.dtype == ir.DataType.FLOAT and value.name not in wide:
            for limit in limits:
                graph.register_initializer(limit)
            clip = ir.node("Clip", [value, *limits])
            cast = ir.node("Cast", [clip.outputs[0]], {"to": ir.DataType.FLOAT16})
            cast.outputs[0].dtype = ir.DataType.FLOAT16
            graph.extend([clip, cast])
            graph.outputs[index] = cast.outputs[0]
