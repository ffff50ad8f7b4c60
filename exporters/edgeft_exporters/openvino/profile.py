"""How long OpenVINO spends on making each tensor of a graph: its own performance counters."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import openvino

from edgeft.graph.load import load
from edgeft_exporters.openvino.executed import executed, made_by
from edgeft_exporters.openvino.session import compiled, for_batch, options, read

_WARMUP, _RUNS = 5, 25


def profile(graph: Path, threads: int, inputs: Mapping[str, Any]) -> dict[str, float]:
    """Return the median milliseconds spent on making each tensor of `graph`, for one run on `inputs`.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
        EdgeftError: OpenVINO refuses it.
    """
    known = made_by(load(graph).graph)
    batch = len(next(iter(inputs.values())))
    model = compiled(for_batch(read(graph), batch), options(threads, PERF_COUNT=True), str(graph))
    request = model.create_infer_request()
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(_WARMUP + _RUNS):
        request.infer(dict(inputs))
        for item in request.get_profiling_info():
            samples[item.node_name].append(item.real_time.total_seconds() * 1e3)
    return _by_tensor(model, known, {name: median(of[_WARMUP:]) for name, of in samples.items()})


def _by_tensor(model: openvino.CompiledModel, known: Mapping[str, str], times: Mapping[str, float]) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    for node in executed(model, known):
        if times.get(node.name, 0.0) > 0 and node.tensor is not None:
            spent[node.tensor] += times[node.name]
    return dict(spent)
