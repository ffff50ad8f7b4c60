"""Which segments cost most when their tensors are rounded to 8 bits, and which must be float to spare them.

    behind_i = E |tail_i(DQ(Q(t_i))) - tail_i(t_i)|^2         t_i the float graph's tensor behind segment i
    inside_i = E |tail_i(segment_i'(t_i-1)) - tail_i(t_i)|^2  segment_i' with every tensor inside of it rounded

Each alone, all weights in float, by the error at the output. What is inside is spared by leaving the segment in float;
to spare t_i both segments that it lies between stay float. What float costs in time is bounded by a share of the
integers' multiplications: a handful of tensors often cause half of the noise, in layers that gain little from integers.
The chain of segments (graph/segments.py) is walked once, and nothing but one tensor is kept, so memory does not depend
on the depth.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.utils import Extractor

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.graph.execute import open_session
from edgeft.graph.segments import Segment
from edgeft.quantize.affine import AffineParams, Floats, dequantize, quantize
from edgeft.quantize.calibration import Execution
from edgeft.quantize.insert import insert_pairs_
from edgeft.quantize.plan import Plan, constant

Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]

_EDGE = 20
"""Multiplications that an integer kernel does while one element is quantized or dequantized, roughly, on x86."""
_LEAST_SHARE = 0.01
"""A tensor with a smaller share of the noise is not worth two segments in float."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What rounding the tensors of each segment costs: mean squared errors of the output, 0 where nothing is rounded.

    Args:
        chain: the segments, in order.
        behind: float64 [S], where the tensor behind the segment is rounded, alone.
        inside: float64 [S], where those inside of it are, alone.
    """

    chain: tuple[Segment, ...]
    behind: NDArray[np.float64]
    inside: NDArray[np.float64]

    def spare(self, most: float, work: NDArray[np.float64]) -> dict[str, str]:
        """Return operator -> why it stays float: what causes most noise first.

        Args:
            most: share of `work` that may be in float, 0..1; conversions at the edges count, too.
            work: float64 [S], see `multiplications`.
        """
        noise = np.stack([self.behind, self.inside])
        total, limit = float(noise.sum()), most * float(work.sum())
        floats: set[int] = set()
        reasons: dict[str, str] = {}
        for flat in np.argsort(-noise, axis=None, kind="stable"):
            inside, index = divmod(int(flat), len(self.chain))
            share = noise[inside, index] / total if total else 0.0
            spared = {index} if inside else {index, index + 1}
            if share < _LEAST_SHARE:
                break
            if self._cost(floats | spared, work) > limit:
                continue
            floats |= spared
            segment = self.chain[index]
            what = f"what is inside {segment.name}" if inside else segment.tensors[-1]
            why = f"measured: {what} in 8 bits causes {share:.0%} of the error by rounded tensors"
            for each in sorted(spared):
                reasons |= {node: reasons.get(node, why) for node in self.chain[each].nodes}
        return reasons

    def _cost(self, floats: set[int], work: NDArray[np.float64]) -> float:
        """Return the multiplications of the segments `floats`, and what the conversions at their edges are worth."""
        ends = [index for index in floats if index + 1 not in floats and index + 1 < len(self.chain)]
        starts = [index - 1 for index in floats if index > 0 and index - 1 not in floats]
        elements = sum(self.chain[index].size for index in (*ends, *starts))
        return float(work[sorted(floats)].sum()) + _EDGE * elements


def rounding_noise(
    graph: onnx.ModelProto,
    chain: tuple[Segment, ...],
    params: Mapping[str, AffineParams],
    output: str,
    inputs: Feeds,
    execution: Execution,
    emit: EventSink = ignore,
) -> Noise:
    """Return what rounding the tensors of each segment of `chain` costs at `output`.

    Args:
        graph: the float graph.
        chain: its segments.
        params: of the tensors that are rounded.
        output: the tensor that errors are measured at.
        inputs: a few calibration inputs, by name.
        execution: threads and batch.
        emit: where progress goes.
    """
    last = next((index for index, segment in enumerate(chain) if output in segment.tensors), len(chain) - 1)
    ends = {segment.tensors[-1] for segment in chain}
    exact = Extractor(onnx.shape_inference.infer_shapes(graph))
    model = ir.from_proto(exact.model)
    insert_pairs_(model, {tensor: found for tensor, found in params.items() if tensor not in ends})
    rounding = Extractor(ir.to_proto(model))
    before = list(_batches(inputs, execution))
    expected = np.concatenate(list(_run(exact, before, output, execution.threads)), dtype=np.float64)

    def cost(tensor: str, batches: Iterable[Floats]) -> float:
        found = _run(exact, ({tensor: batch} for batch in batches), output, execution.threads)
        return float(np.square(np.concatenate(list(found)) - expected).mean())

    behind, inside = np.zeros((2, len(chain)))
    for index, segment in enumerate(chain[:last]):
        tensor = segment.tensors[-1]
        values = list(_run(exact, before, tensor, execution.threads))
        if tensor in params:
            parts = (quantize(batch, params[tensor]) for batch in values)
            behind[index] = cost(tensor, (dequantize(q, params[tensor]) for q in parts))
        if not params.keys().isdisjoint(segment.tensors[:-1]):
            rounded = _run(rounding, before, tensor, execution.threads, optimise=False)
            inside[index] = cost(tensor, rounded)
        before = [{tensor: batch} for batch in values]
        emit(Progress("find noisy tensors", index + 1, last))
    return Noise(chain, behind, inside)


def _batches(feeds: Feeds, execution: Execution) -> Iterator[Feeds]:
    for start in range(0, len(next(iter(feeds.values()))), execution.batch):
        yield {name: values[start : start + execution.batch] for name, values in feeds.items()}


def _run(
    extractor: Extractor, batches: Iterable[Feeds], output: str, threads: int, *, optimise: bool = True
) -> Iterator[Floats]:
    """Yield `output` of each batch; without `optimise` no float weight between Q/DQ pairs is rounded by the runtime."""
    session = None
    for feeds in batches:
        if session is None:
            session = open_session(extractor.extract_model(list(feeds), [output]), threads, optimise=optimise)
        yield session.run([output], dict(feeds))[0]


def multiplications(plan: Plan, chain: tuple[Segment, ...]) -> NDArray[np.float64]:
    """Return how many products of weights each segment computes in integers for one input; open sizes count once."""
    found = {str(op.node.outputs[0].name): _products(op.node) for op in plan.weighted}
    return np.array([sum(found.get(name, 0.0) for name in segment.tensors) for segment in chain])


def _products(node: ir.Node) -> float:
    weight = constant(node.inputs[1]) if node.op_type in {"Conv", "Gemm", "MatMul"} else None
    if weight is None:
        return 0.0
    sizes = list(node.outputs[0].shape or [])
    places = sizes[2:] if node.op_type == "Conv" else sizes[1:-1]
    return weight.size * float(np.prod([size for size in places if isinstance(size, int)] or [1]))
