"""Inputs of a graph, read when they are asked for, and what any of its tensors is for them, a batch at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.data.rows import Rows
from edgeft.graph.execute import open_session, run
from edgeft.graph.taps import with_outputs
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution, Pixels

__all__ = ["ArrayRows", "First", "Images", "Rows", "tensors_of"]


class Images(Protocol):
    """Inputs of a graph that are read when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, chosen: NDArray[np.int64], /) -> Pixels:
        """Return those at the positions `chosen`, [n, ...]."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """The rows of one array, for a graph with one input called `name`."""

    name: str
    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> dict[str, NDArray[Any]]:
        return {self.name: self.values[rows]}


def tensors_of(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    rows: Rows,
    execution: Execution,
    emit: EventSink = ignore,
    task: str = "calibrate",
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield `tensors` of `model` for each batch of `rows`, in order; a batch is freed when the next is asked for.

    Args:
        model: a graph.
        tensors: inner tensors or outputs.
        rows: in the types that the graph takes.
        execution: threads and batch.
        emit: where progress goes.
        task: what progress calls it.

    Raises:
        QuantizationError: there are no rows.
        EdgeftError: the graph has no such tensor.
    """
    if not len(rows):
        raise QuantizationError("there are no inputs to run the graph on", hint="give calibration and validation data")
    session = open_session(with_outputs(model, tensors), execution.threads, optimise=execution.optimise)
    for start in range(0, len(rows), execution.batch):
        chunk = rows[start : start + execution.batch]
        feeds = {name: np.ascontiguousarray(values) for name, values in chunk.items()}
        yield tuple(run(session, tensors, feeds, f"inputs {start} to {min(start + execution.batch, len(rows)) - 1}"))
        emit(Progress(task, min(start + execution.batch, len(rows)), len(rows)))


@dataclass(frozen=True, slots=True)
class First:
    """The first `count` of `rows`."""

    rows: Rows
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.rows))

    def __getitem__(self, rows: slice) -> Mapping[str, NDArray[Any]]:
        start, stop, _ = rows.indices(len(self))
        return self.rows[start:stop]
