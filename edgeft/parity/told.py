"""A comparison of two graphs as JSON values: for `edgeft inspect --against`, and for the record of a build."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from edgeft.core.events import EventSink, ignore
from edgeft.graph.load import load
from edgeft.parity.causes import Finding, diagnose
from edgeft.parity.distance import Distance
from edgeft.parity.layers import Comparison, compare
from edgeft.parity.split import Split, split
from edgeft.quantize.rows import Rows


def told(found: Comparison, findings: Sequence[Finding], parts: Split | None) -> dict[str, Any]:
    """Return the layers, the causes of the error, and the findings; infinite decibels, which JSON lacks, are null."""
    return {
        "n": found.n,
        "layers": [
            {
                "layer": layer.pair.layer,
                "op": layer.pair.op_type,
                "tensor": layer.pair.name,
                "drifted": _distance(layer.drifted),
                "alone": _distance(layer.alone),
            }
            for layer in found.layers
        ],
        "runtime": _distance(found.runtime),
        "split": None if parts is None else asdict(parts),
        "findings": [_finite(asdict(finding)) for finding in findings],
    }


def attribute(base: Path, new: Path, rows: Rows, threads: int, *, emit: EventSink = ignore) -> dict[str, Any]:
    """Return where the deployment graph `new` parts from `base` on `rows`, layer by layer.

    Where activations were swapped no layer is judged (`judged` is False).

    Raises:
        DataError: the graphs do not align.
    """
    one, other = load(base), load(new)
    found = compare(one, other, rows, threads, emit=emit)
    judged = not _swapped(one, other)
    parts = split(one, other, rows, found.layers[-1].pair, threads)
    return {**told(found, diagnose(one, other, rows, found) if judged else (), parts), "judged": judged}


def _swapped(base: onnx.ModelProto, new: onnx.ModelProto) -> bool:
    """Return whether activations of `base` became Relu in `new`: its layers were trained to hold other weights."""
    before, after = (Counter(node.op_type for node in model.graph.node) for model in (base, new))
    return after["Relu"] > before["Relu"]


def _distance(distance: Distance) -> dict[str, Any]:
    return _finite(asdict(distance))


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
