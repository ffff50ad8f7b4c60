"""Which tensors cost most when they are rounded to 8 bits, and which segments must be float to spare them.

    noise_i = E |tail_i(DQ(Q(t_i))) - tail_i(t_i)|^2,    t_i the float graph's tensor behind segment i

Each tensor alone, all weights in float, by the error at the output. To spare t_i both segments that it lies between
stay float; one alone would be worse than none, because its weights could no longer make up for what its rounded output
loses. What float costs in time is bounded by a share of the network's multiplications: a handful of early tensors often
cause half of the noise, in layers that gain little from integers. The chain of segments (graph/segments.py) is walked
once, and nothing but one tensor is kept, so memory does not depend on the depth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
from edgeft.quantize.plan import constant

_EDGE = 20
"""Multiplications that an integer kernel does while one element is quantized or dequantized, roughly, on x86."""
_LEAST_SHARE = 0.05
"""A tensor with a smaller share of the noise is not worth two segments in float."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What rounding the tensor behind each segment costs.

    Args:
        chain: the segments, in order.
        noise: float64 [S], mean squared error of the output where that tensor alone is rounded; 0 where it never is.
        multiplications: float64 [S], of each segment, for one input of the graph.
    """

    chain: tuple[Segment, ...]
    noise: NDArray[np.float64]
    multiplications: NDArray[np.float64]

    def spare(self, most: float) -> dict[str, str]:
        """Return operator -> why it stays float: the noisiest tensors first.

        Args:
            most: share of all multiplications that may be in float, 0..1; what is quantized and dequantized at the
                edges counts, too.
        """
        total, limit = float(self.noise.sum()), most * float(self.multiplications.sum())
        floats: set[int] = set()
        reasons: dict[str, str] = {}
        for index in np.argsort(-self.noise, kind="stable"):
            share = self.noise[index] / total if total else 0.0
            wanted = floats | {int(index), int(index) + 1}
            if share < _LEAST_SHARE:
                break
            if self._cost(wanted) > limit:
                continue
            floats = wanted
            tensor = self.chain[index].tensors[-1]
            why = f"measured: {tensor} in 8 bits causes {share:.0%} of the error by rounded tensors"
            for segment in self.chain[index : index + 2]:
                reasons |= {node: reasons.get(node, why) for node in segment.nodes}
        return reasons

    def _cost(self, floats: set[int]) -> float:
        """Return the multiplications of the segments `floats`, and what the conversions at their edges are worth."""
        ends = [index for index in floats if index + 1 not in floats and index + 1 < len(self.chain)]
        starts = [index - 1 for index in floats if index > 0 and index - 1 not in floats]
        elements = sum(self.chain[index].size for index in (*ends, *starts))
        return float(self.multiplications[sorted(floats)].sum()) + _EDGE * elements


def rounding_noise(
    graph: onnx.ModelProto,
    chain: tuple[Segment, ...],
    params: Mapping[str, AffineParams],
    output: str,
    inputs: Mapping[str, NDArray[np.generic]],
    execution: Execution,
    emit: EventSink = ignore,
) -> Noise:
    """Return what rounding the tensor behind each segment of `chain` costs at `output`.

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
    extractor = Extractor(onnx.shape_inference.infer_shapes(graph))
    before: Mapping[str, NDArray[np.generic]] = inputs
    expected = _run(extractor, inputs, output, execution)
    noise = np.zeros(len(chain))
    for index, segment in enumerate(chain[:last]):
        tensor = segment.tensors[-1]
        values = _run(extractor, before, tensor, execution)
        if tensor in params:
            rounded = dequantize(quantize(values, params[tensor]), params[tensor])
            found = _run(extractor, {tensor: rounded}, output, execution)
            noise[index] = np.square(found.astype(np.float64) - expected).mean()
        before = {tensor: values}
        emit(Progress("find noisy tensors", index + 1, last))
    model = ir.from_proto(extractor.model)
    return Noise(chain, noise, np.array([_multiplications(model, segment) for segment in chain]))


def _run(extractor: Extractor, feeds: Mapping[str, NDArray[np.generic]], output: str, execution: Execution) -> Floats:
    session = open_session(extractor.extract_model(list(feeds), [output]), execution.threads)
    count = len(next(iter(feeds.values())))
    chunks = [slice(start, start + execution.batch) for start in range(0, count, execution.batch)]
    return np.concatenate([session.run([output], {key: x[chunk] for key, x in feeds.items()})[0] for chunk in chunks])


def _multiplications(model: ir.Model, segment: Segment) -> float:
    """Return how many products of weights a segment computes for one input; open sizes count once."""
    made = set(segment.tensors)
    total = 0.0
    for node in model.graph:
        weight = constant(node.inputs[1]) if node.op_type in {"Conv", "Gemm", "MatMul"} else None
        if weight is None or node.outputs[0].name not in made:
            continue
        sizes = list(node.outputs[0].shape or [])
        places = sizes[2:] if node.op_type == "Conv" else sizes[1:-1]
        total += weight.size * float(np.prod([size for size in places if isinstance(size, int)] or [1]))
    return total
