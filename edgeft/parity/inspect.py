"""`edgeft inspect NEW.onnx --against BASE.onnx`: which layer, what kind of fault, and what mends it.

On request it writes the smallest graph that still shows the worst fault, with inputs and both outputs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.data.samples import InputSpec, Normalisation, Samples, read_samples
from edgeft.graph.load import load
from edgeft.parity.causes import Finding, diagnose
from edgeft.parity.forced import reproducer
from edgeft.parity.layers import Comparison, alone_batches, compare, scaled_alike
from edgeft.parity.split import split
from edgeft.parity.told import told

_INPUTS = "inputs.npz"
_FACTS = "reproducer.json"
_MODEL = "reproducer.onnx"


def inspect(  # noqa: PLR0913 - two graphs, their inputs, and where a reproducer goes
    base: Path,
    new: Path,
    data: Path,
    workspace: Path,
    *,
    most: int = 64,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    threads: int = 1,
    bisect: Path | None = None,
    emit: EventSink = ignore,
) -> dict[str, Any]:
    """Return how `new` differs from `base` on `data`, layer by layer, as JSON values.

    Args:
        base: the reference .onnx file.
        new: the .onnx file under test.
        data: .npz, .npy or image folder, as `edgeft quantize` reads it.
        workspace: a folder for decoded images.
        most: inputs at most.
        mean: of images for a float input.
        std: likewise.
        threads: CPU threads.
        bisect: a new folder for the smallest graph that shows the worst fault, with its inputs and both outputs.
        emit: where progress goes.

    Raises:
        DataError: a file or the data cannot be used, or the graphs do not align.
        UsageError: images need a mean and a std, one was given without the other, or `bisect` is not empty.
    """
    if (mean is None) is not (std is None):
        raise UsageError("--mean and --std go together: the model takes (pixel - mean) / std", hint="give both")
    if bisect is not None and bisect.exists() and any(bisect.iterdir()):
        raise UsageError(f"{bisect}: is not empty", hint="give a new folder to --bisect")
    one, other = load(base, external_data=True), load(new, external_data=True)
    normalisation = None if mean is None or std is None else Normalisation(mean, std)
    rows = read_samples(
        data,
        _specs(one),
        normalisation=normalisation,
        limit=most,
        target=workspace / "pixels.npy",
        threads=threads,
        emit=emit,
    )
    found = compare(one, other, rows, threads, emit=emit)
    findings = diagnose(one, other, rows, found)
    parts = split(one, other, rows, found.layers[-1].pair, threads)
    written = None
    if bisect is not None:
        written = _write_reproducer(one, other, rows, found, findings, bisect)
    return {"base": str(base), "new": str(new), **told(found, findings, parts), "reproducer": written}


def _specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
            found.append(
                InputSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, tuple(sizes[1:]))
            )
    return tuple(found)


def _write_reproducer(
    base: onnx.ModelProto,
    new: onnx.ModelProto,
    rows: Samples,
    found: Comparison,
    findings: tuple[Finding, ...],
    folder: Path,
) -> str:
    """Write the smallest graph that shows the worst finding, or else the layer furthest from the base."""
    pairs = [layer.pair for layer in found.layers]
    names = [finding.tensor for finding in findings]
    by_distance = min(found.layers, key=lambda layer: layer.alone.sqnr_db)
    worst = next((pair for pair in pairs if names and pair.name == names[0]), by_distance.pair)
    model = reproducer(new, pairs, worst)
    wanted = [value.name for value in model.graph.input]
    place = [pair.name for pair in pairs].index(worst.name)
    fed: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in wanted}
    expected, got = [], []
    for before, after, given in alone_batches(scaled_alike(base, new), new, rows, pairs):
        for name in wanted:
            fed[name].append(given[name])
        expected.append(before[place])
        got.append(after[place])
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / _MODEL)
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in fed.items()}
    np.savez(folder / _INPUTS, **arrays, expected=np.concatenate(expected), found=np.concatenate(got))
    facts: dict[str, Any] = {
        "layer": worst.layer,
        "output": worst.seen,
        "inputs": wanted,
        "operators": [node.op_type for node in model.graph.node],
        "how": f"run {_MODEL} on the arrays named in inputs; `found` is what it gives, `expected` what the base gives",
    }
    write_atomic(folder / _FACTS, json.dumps(facts, indent=1) + "\n")
    return str(folder / _MODEL)
