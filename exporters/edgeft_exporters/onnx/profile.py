"""How long onnxruntime spends on each operator of a graph: its own profiler, on its own optimised graph.

The optimised graph is saved, its nodes are given names of their own, and it is run as it is: so every kernel that is
timed is known. A kernel is charged to the operator whose name, or whose output's name, it bears; one that onnxruntime
invented (a change of layout) to the next kernel downstream that the given graph knows.
"""

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from edgeft.graph.load import load
from edgeft.runtime.session import session_options
from edgeft_exporters.onnx.optimised import source_name
from edgeft_exporters.onnx.session import open_bytes

_WARMUP, _RUNS = 5, 25
_KERNEL = "_kernel_time"


def profile(graph: Path, threads: int, inputs: Mapping[str, Any]) -> dict[str, float]:
    """Return the median milliseconds spent on making each tensor of `graph`, for one run on `inputs`.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
        EdgeftError: onnxruntime refuses it.
    """
    model = load(graph)
    with tempfile.TemporaryDirectory(prefix="edgeft-profile-") as folder:
        optimised, owners = _optimised(model, str(graph), threads, Path(folder) / "optimised.onnx")
        options = session_options(threads, spinning=False)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = open_bytes(optimised.SerializeToString(), str(graph), options)
        for _ in range(_WARMUP + _RUNS):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    samples: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            # onnxruntime gives each reader of a DequantizeLinear one of its own: "node3/duplicated"
            samples[event["name"].removesuffix(_KERNEL).partition("/")[0]].append(event["dur"] / 1e3)
    spent: dict[str, float] = defaultdict(float)
    for node, milliseconds in samples.items():
        runs = [sum(of) for of in _by_run(milliseconds)]
        spent[owners[node]] += statistics.median(runs[_WARMUP:])
    return dict(spent)


def _by_run(milliseconds: list[float]) -> list[list[float]]:
    """Cut a node's samples, in the order in which they ran, into those of each run: a copied node has several."""
    each = len(milliseconds) // (_WARMUP + _RUNS)
    return [milliseconds[start : start + each] for start in range(0, len(milliseconds), each)]


def _optimised(model: onnx.ModelProto, name: str, threads: int, file: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return what onnxruntime makes of `model`, every node with a name of its own, and the owner of each."""
    options = session_options(threads, spinning=False)
    options.optimized_model_filepath = str(file)
    open_bytes(model.SerializeToString(), name, options)
    optimised = onnx.load(file)
    origins = [source_name(node.name) for node in optimised.graph.node]
    for index, node in enumerate(optimised.graph.node):
        node.name = f"node{index}"
    return optimised, _owners(optimised.graph, origins, model.graph)


def _owners(graph: onnx.GraphProto, origins: list[str], given: onnx.GraphProto) -> dict[str, str]:
    """Return node -> the tensor of `given` that its time belongs to: its own, or one downstream.

    Args:
        graph: optimised.
        origins: for each of its nodes, the name of the node that it was.
        given: the graph as it was.
    """
    made = {node.name: node.output[0] for node in given.node if node.name}
    known = {name for node in given.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    owners: dict[str, str] = {}
    for node, origin in zip(reversed(graph.node), reversed(origins), strict=True):
        candidates = (made.get(origin), origin, *node.output)  # blocked-layout kernels are named after their output
        own = next((name for name in candidates if name in known), None)
        below = (owners[reader.name] for name in node.output for reader in readers[name])
        owners[node.name] = own or next(below, graph.output[0].name)
    return owners
