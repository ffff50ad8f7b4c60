"""Which segments of a graph cost most when they are int8: each alone, the rest in float, by the error at the output.

    noise_i = E |tail_i(int8_i(t)) - tail_i(float_i(t))|^2,    t = the float graph's tensor before segment i

The chain of segments (graph/segments.py) is walked once; a segment is cut out of both graphs, the float graph behind it
is the tail. Nothing but one tensor of the float graph is kept, so memory does not depend on the depth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.graph.execute import open_session
from edgeft.graph.segments import Segment
from edgeft.quantize.affine import Floats
from edgeft.quantize.calibration import Execution

_SHARE_OF_NOISE = 0.5
_SHARE_OF_SEGMENTS = 0.25


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What each segment costs alone.

    Args:
        chain: the segments, in order, up to the one that makes the output.
        noise: float64 [S], mean squared error of the output where that segment alone is int8.
    """

    chain: tuple[Segment, ...]
    noise: NDArray[np.float64]

    def worst(self) -> Mapping[str, str]:
        """Return operator -> why it is left in float: the fewest segments with half of the noise, a quarter at most."""
        total = float(self.noise.sum())
        if total == 0:
            return {}
        order = np.argsort(-self.noise, kind="stable")
        enough = int(np.searchsorted(np.cumsum(self.noise[order]), _SHARE_OF_NOISE * total)) + 1
        most = max(1, int(len(self.chain) * _SHARE_OF_SEGMENTS))
        reasons: dict[str, str] = {}
        for index in order[: min(enough, most)]:
            segment, share = self.chain[index], self.noise[index] / total
            why = f"measured: {segment.name} in int8 causes {share:.0%} of the output's error"
            reasons |= dict.fromkeys(segment.nodes, why)
        return reasons


def sensitivity(
    graph: onnx.ModelProto,
    quantized: onnx.ModelProto,
    chain: tuple[Segment, ...],
    output: str,
    inputs: Mapping[str, NDArray[np.generic]],
    execution: Execution,
    emit: EventSink = ignore,
) -> Sensitivity:
    """Return what each segment of `chain` up to `output` costs when it alone is int8.

    Args:
        graph: the float graph.
        quantized: its Q/DQ graph; tensors between segments have the same names in both.
        chain: the segments of `graph`.
        output: the tensor that errors are measured at.
        inputs: a few calibration inputs.
        execution: threads and batch.
        emit: where progress goes.
    """
    ends = [segment.tensors[-1] for segment in chain]
    last = next(index for index, segment in enumerate(chain) if output in segment.tensors)
    before: Mapping[str, NDArray[np.generic]] = inputs
    floats, integers = (Extractor(onnx.shape_inference.infer_shapes(model)) for model in (graph, quantized))
    noise = np.zeros(last + 1)
    for index in range(last + 1):
        end = output if index == last else ends[index]
        wanted = _run(floats, before, end, execution)
        found = _run(integers, before, end, execution)
        if index == last:
            noise[index] = _mean_square(found, wanted)
        else:
            tails = [_run(floats, {end: values}, output, execution) for values in (found, wanted)]
            noise[index] = _mean_square(*tails)
            before = {end: wanted}
        emit(Progress("find worst segments", index + 1, last + 1))
    return Sensitivity(chain[: last + 1], noise)


def _run(extractor: Extractor, feeds: Mapping[str, NDArray[np.generic]], output: str, execution: Execution) -> Floats:
    part = extractor.extract_model(list(feeds), [output])
    session = open_session(part, execution.threads)
    count = len(next(iter(feeds.values())))
    chunks = [slice(start, start + execution.batch) for start in range(0, count, execution.batch)]
    return np.concatenate([session.run([output], {key: x[chunk] for key, x in feeds.items()})[0] for chunk in chunks])


def _mean_square(found: Floats, wanted: Floats) -> float:
    return float(np.square(found.astype(np.float64) - wanted).mean())
