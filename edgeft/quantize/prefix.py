"""The quantized prefix: everything before one operator, run once, in order, on integers.

Only tensors that later operators still read are kept, as integers, so a sweep over all layers costs one forward pass
and holds a few feature maps: at most about 1.6 MB an image for a 224 pixel mobile net.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from edgeft.quantize.affine import Integers
from edgeft.quantize.calibration import Execution, Pixels, make_session


class QuantizedPrefix:
    """Advances through a Q/DQ graph, from one integer tensor to the next.

    Args:
        model: the Q/DQ graph; its weights up to the tensor asked for must be final.
        targets: the integer tensors that will be asked for, in order.
        pixels: uint8 [N, ...], what the graph takes.
        execution: threads and batch.
    """

    def __init__(self, model: ir.Model, targets: Sequence[ir.Value], pixels: Pixels, execution: Execution) -> None:
        self._model = model
        self._remaining = list(targets)
        self._execution = execution
        self._live: dict[ir.Value, Integers] = {model.graph.inputs[0]: pixels}

    def advance(self, target: ir.Value) -> Integers:
        """Return the integers of `target` [N, ...]; targets must be asked for in the order given."""
        if target not in self._live:
            self._live[target] = self._compute(target)
        self._remaining.remove(target)
        needed = self._boundary(self._remaining)
        result = self._live[target]
        self._live = {value: array for value, array in self._live.items() if value in needed}
        return result

    def chunks(self, array: Integers) -> Iterable[Integers]:
        """Yield `array` a batch at a time."""
        for start in range(0, len(array), self._execution.batch):
            yield array[start : start + self._execution.batch]

    def _compute(self, target: ir.Value) -> Integers:
        sources = self._boundary([target])
        graph = ir.convenience.extract(self._model.graph, list(sources), [target])
        model = ir.Model(graph, ir_version=self._model.ir_version)
        session = make_session(model, self._execution.threads)
        parts = []
        for chunk in zip(*(self.chunks(self._live[source]) for source in sources), strict=True):
            feeds = {str(source.name): np.ascontiguousarray(part) for source, part in zip(sources, chunk, strict=True)}
            parts.append(session.run(None, feeds)[0])
        return np.concatenate(parts)

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
