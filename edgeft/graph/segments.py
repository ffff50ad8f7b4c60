"""Cut a graph into a chain of segments: between two of them, one tensor alone is alive.

A segment has one input and one output, so each can run in another precision than its neighbours at the price of one
conversion. Residual blocks, squeeze-and-excite and attention come out whole, whatever the operators are called.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgeft.graph.branches import read_by


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of operators with one input and one output.

    Args:
        nodes: names of its operators, in order; an operator without a name goes by its first output's.
        tensors: what they make.
        size: elements of its output for one input of the graph; 0 where that is not known.
    """

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """Its first and last operator."""
        return self.nodes[0] if len(self.nodes) == 1 else f"{self.nodes[0]} .. {self.nodes[-1]}"


def segments(model: ir.Model, starts: Callable[[ir.Node], bool]) -> tuple[Segment, ...]:
    """Return the chain of segments of `model`, in order; every operator is in exactly one.

    Args:
        model: its nodes in topological order.
        starts: whether an operator is worth a segment of its own; a run without any joins the segment before it, or at
            the very beginning the one after it.
    """
    nodes = list(model.graph)
    runs: list[list[ir.Node]] = []
    current: list[ir.Node] = []
    for node, alone in zip(nodes, _cuts(model), strict=True):
        current.append(node)
        if alone:
            runs.append(current)
            current = []
    if current:
        runs.append(current)
    joined: list[list[ir.Node]] = []
    for run in runs:
        if joined and (not any(map(starts, run)) or not any(map(starts, joined[-1]))):
            joined[-1].extend(run)
        else:
            joined.append(list(run))
    return tuple(_segment(run) for run in joined)


def _cuts(model: ir.Model) -> list[bool]:
    """Return, for each node in order, whether behind it nothing is alive but its last output."""
    nodes = list(model.graph)
    last = {value: index for index, node in enumerate(nodes) for value in read_by(node)}
    last |= dict.fromkeys(model.graph.outputs, len(nodes))
    alive = {value for value in model.graph.inputs if value in last}
    cuts = []
    for index, node in enumerate(nodes):
        alive |= {value for value in node.outputs if last.get(value, -1) > index}
        alive = {value for value in alive if last[value] > index}
        cuts.append(alive <= {node.outputs[-1]})
    return cuts


def _segment(run: list[ir.Node]) -> Segment:
    output = run[-1].outputs[-1]
    sizes = [] if output.shape is None else list(output.shape)[1:]
    known = [size for size in sizes if isinstance(size, int)]
    size = 1 if output.shape is not None and len(known) == len(sizes) else 0
    for each in known:
        size *= each
    names = tuple(node.name or str(node.outputs[0].name) for node in run)
    return Segment(names, tuple(str(value.name) for node in run for value in node.outputs), size)
