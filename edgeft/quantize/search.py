"""Which segments of a graph to leave in float because they run faster there: measured on this device.

A graph is a chain of segments (graph/segments.py). Both the float graph and the int8 graph are profiled once, so the
time of each segment in each precision is known. The assignment with the least

    sum of segment times + p * sum over changes of precision of (elements of the tensor between)

is a shortest path through the chain. What a change costs, p per element, is not known beforehand: it depends on what
the runtime fuses. So the path is found for several p, and the assignments that come out are raced against each other
and against int8 everywhere, as whole graphs, in turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.core.events import EventSink, Message, ignore
from edgeft.graph.segments import Segment, segments
from edgeft.quantize.placement import Placement

CHANGE_COSTS_NS = (0.0, 0.5, 2.0, 8.0)
"""Nanoseconds per element tried for p: a Q and a DQ at the speed of memory are some 0.5."""
_CLEARLY_FASTER = 0.97
"""An assignment must take at most this share of int8's time: less than the race can tell apart changes nothing."""


@dataclass(frozen=True, slots=True)
class Device:
    """How this device is measured.

    Args:
        profile: a graph -> milliseconds by tensor that it makes.
        race: graphs -> the median milliseconds of each, timed in turns.
    """

    profile: Callable[[onnx.ModelProto], Mapping[str, float]]
    race: Callable[[Sequence[onnx.ModelProto]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Found:
    """The fastest assignment.

    Args:
        keep_float: operator -> why it stays in float; empty where int8 everywhere is the fastest.
        segments: how many there are.
        floats: how many of them stay in float.
        ratio: time over that of int8 everywhere, as raced.
    """

    keep_float: Mapping[str, str]
    segments: int
    floats: int
    ratio: float

    @property
    def note(self) -> str:
        """What was found, in words."""
        if not self.floats:
            return f"search: int8 in all of {self.segments} segments is the fastest mix measured on this device"
        return (
            f"search: {self.floats} of {self.segments} segments stay in float, where they are faster on this device: "
            f"{self.ratio:.2f} times as long as int8 everywhere"
        )


def search(
    graph: onnx.ModelProto,
    int8: onnx.ModelProto,
    placement: Placement,
    build: Callable[[Mapping[str, str]], onnx.ModelProto],
    device: Device,
    *,
    emit: EventSink = ignore,
) -> Found:
    """Return which operators of `graph` to leave in float.

    Args:
        graph: the float graph.
        int8: the same with everything in int8 that `placement` takes.
        placement: of the target.
        build: makes an int8 graph that leaves these operators in float; its weights may be rough.
        device: what measures.
        emit: where progress goes.
    """
    chain = segment_chain(graph, placement)
    times = np.stack([_times(chain, device.profile(model)) for model in (int8, graph)], axis=1)
    sizes = np.array([segment.size for segment in chain])
    tried: dict[tuple[bool, ...], Mapping[str, str]] = {}
    for cost in CHANGE_COSTS_NS:
        floats = cheapest(times, sizes * cost * 1e-6)
        if any(floats) and not all(floats):
            tried.setdefault(floats, _reasons(chain, floats, times))
    if not tried:
        return Found({}, len(chain), 0, 1.0)
    emit(Message(f"search: racing {len(tried)} ways to mix int8 and float over {len(chain)} segments"))
    raced = device.race([int8, *(build(reasons) for reasons in tried.values())])
    ratios = [milliseconds / raced[0] for milliseconds in raced[1:]]
    best = int(np.argmin(ratios))
    if ratios[best] > _CLEARLY_FASTER:
        return Found({}, len(chain), 0, 1.0)
    floats, reasons = list(tried.items())[best]
    return Found(reasons, len(chain), sum(floats), ratios[best])


def segment_chain(graph: onnx.ModelProto, placement: Placement) -> tuple[Segment, ...]:
    """Return `graph` as a chain of segments, each with operators whose weights `placement` takes in integers."""
    weighted = {rule.op_type for rule in placement.rules if rule.weight is not None}
    return segments(ir.from_proto(graph), lambda node: node.op_type in weighted)


def cheapest(times: np.ndarray, change: np.ndarray) -> tuple[bool, ...]:
    """Return for each segment whether it is float on the cheapest path (Viterbi).

    Args:
        times: float64 [S, 2], milliseconds of each segment in int8 and in float.
        change: float64 [S], what it costs to change precision behind each segment.
    """
    cost = times[0].astype(np.float64)
    came = np.zeros((len(times), 2), np.int64)
    for index in range(1, len(times)):
        step = cost[:, None] + change[index - 1] * (1 - np.eye(2))  # [from, to]
        came[index] = step.argmin(axis=0)
        cost = step.min(axis=0) + times[index]
    path = [int(cost.argmin())]
    for index in range(len(times) - 1, 0, -1):
        path.append(int(came[index, path[-1]]))
    return tuple(bool(state) for state in reversed(path))


def _times(chain: tuple[Segment, ...], profile: Mapping[str, float]) -> np.ndarray:
    """Return each segment's milliseconds; "tensor::q" and its like belong to the segment that makes `tensor`."""
    owner = {tensor: index for index, segment in enumerate(chain) for tensor in segment.tensors}
    times = np.zeros(len(chain))
    for tensor, milliseconds in profile.items():
        name = tensor
        while name not in owner and "::" in name:  # a file's own names may hold it, too: onnx::Relu_12
            name = name.rpartition("::")[0]
        times[owner.get(name, 0)] += milliseconds
    return times


def _reasons(chain: tuple[Segment, ...], floats: tuple[bool, ...], times: np.ndarray) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for segment, is_float, (int8_ms, float_ms) in zip(chain, floats, times, strict=True):
        if is_float:
            why = f"measured: {segment.name} takes {float_ms:.3g} ms in float, {int8_ms:.3g} ms in int8"
            reasons |= dict.fromkeys(segment.nodes, why)
    return reasons
