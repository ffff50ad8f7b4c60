"""The exam that every exporter must pass, ours and anyone's.

    for case in cases(exporter):
        case.check(exporter, empty_folder)

The model is a small classifier with a known reference: onnx's own evaluator, which shares no code with any runtime.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.core.digest import sha256_file
from edgeft.core.errors import EdgeftError
from edgeft.core.exporter import Exporter
from edgeft.quantize.placement import Placement

_SIDE, _CHANNELS, _CLASSES = 8, 4, 3
_ATOL: Final = 1e-2
"""Scores of the reference and of a runtime that may compute in float16: 2**-11 relative, a few layers deep."""


class ExamError(EdgeftError):
    """The exporter does not keep its contract."""


@dataclass(frozen=True, slots=True)
class ExporterCase:
    """One question of the exam: `check` raises `ExamError` where the exporter, given an empty folder, fails it.

    Args:
        name: what is asked.
        check: asks it.
        runs: whether the runtime must be here: not asked of an exporter for another device (`Exporter.cross`).
    """

    name: str
    check: Callable[[Exporter, Path], None]
    runs: bool = False


def classifier() -> onnx.ModelProto:
    """Return a float deployment graph: `pixels` uint8 [N, 8, 8, 3] to `scores` float32 [N, 3]."""
    rng = np.random.default_rng(0)
    arrays = {
        "scale": np.float32(1 / 128),
        "zero_point": np.uint8(127),
        "conv.weight": rng.normal(0, 0.3, (_CHANNELS, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.3, _CHANNELS).astype(np.float32),
        "head.weight": rng.normal(0, 1, (_CLASSES, _CHANNELS)).astype(np.float32),
        "head.bias": rng.normal(0, 1, _CLASSES).astype(np.float32),
        "temperature": np.float32(1.5),
    }
    node = helper.make_node
    nodes = [
        node("Transpose", ["pixels"], ["image"], "image", perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["image", "scale", "zero_point"], ["x"], "x"),
        node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["conv"], ["relu"], "relu"),
        node("GlobalAveragePool", ["relu"], ["pool"], "pool"),
        node("Flatten", ["pool"], ["flat"], "flat"),
        node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], "head", transB=1),
        node("Div", ["logits", "temperature"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["scores"], "scores", axis=1),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", _SIDE, _SIDE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", _CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "classifier", [pixels], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _declares_a_placement(exporter: Exporter, folder: Path) -> None:
    del folder
    placement = exporter.placement
    _require(
        bool(exporter.name) and exporter.name == exporter.name.lower(), f"name {exporter.name!r} is not lower case"
    )
    _require(isinstance(placement, Placement), f"placement is {type(placement).__name__}, not Placement")
    names = [rule.op_type for rule in placement.rules]
    _require(len(set(names)) == len(names), f"an operator has two rules: {sorted(names)}")
    both = set(names) & set(placement.float_reasons)
    _require(not both, f"{sorted(both)} take integers and have a reason to stay float")
    for rule in placement.rules:
        weighted = rule.weight is not None
        _require(weighted == (rule.weight_axis is not None), f"{rule.op_type}: weight and weight_axis go together")


def _fingerprint_is_stable_json(exporter: Exporter, folder: Path) -> None:
    del folder
    first, second = (json.dumps(exporter.fingerprint(), sort_keys=True, allow_nan=False) for _ in range(2))
    _require(first == second, "the fingerprint changes from call to call")
    _require(bool(exporter.fingerprint()), "the fingerprint is empty")


def _lowers_into_the_folder(exporter: Exporter, folder: Path) -> None:
    graph, out = _saved(folder), folder / "out"
    before = sha256_file(graph)
    files = exporter.lower(graph, out)
    _require(bool(files), "lower returned no file")
    for file in files:
        _require(file.is_file() and file.stat().st_size > 0, f"{file} is missing or empty")
        _require(file.resolve().is_relative_to(out.resolve()), f"{file} is outside {out}")
    _require({path for path in out.rglob("*") if path.is_file()} == set(files), "lower left files it does not name")
    _require(sha256_file(graph) == before, "lower changed the graph that it was given")


def _session_equals_the_reference(exporter: Exporter, folder: Path) -> None:
    run = exporter.session(exporter.lower(_saved(folder), folder / "out")[0], 1)
    reference = ReferenceEvaluator(classifier())
    for count in (1, 3):
        pixels = _pixels(count)
        expected = np.asarray(cast("list[object]", reference.run(None, {"pixels": pixels}))[0])
        found = np.asarray(run({"pixels": pixels})[0])
        _require(found.shape == expected.shape, f"scores of shape {found.shape}, expected {expected.shape}")
        error = float(np.abs(found - expected).max())
        _require(error <= _ATOL, f"scores differ from the reference by {error:.2g}, more than {_ATOL}")


def _session_repeats_itself(exporter: Exporter, folder: Path) -> None:
    run = exporter.session(exporter.lower(_saved(folder), folder / "out")[0], 2)
    pixels = _pixels(2)
    first, second = (np.asarray(run({"pixels": pixels})[0]) for _ in range(2))
    _require(bool((first == second).all()), "two runs on the same pixels differ")


def _profile_charges_known_tensors(exporter: Exporter, folder: Path) -> None:
    spent = exporter.profile(_saved(folder), 1, {"pixels": _pixels(1)})
    known = {name for node in classifier().graph.node for name in node.output}
    _require(set(spent) <= known, f"profile charges {sorted(set(spent) - known)}, which the graph does not make")
    _require(bool(spent) and min(spent.values()) >= 0 and sum(spent.values()) > 0, f"profile measured nothing: {spent}")


def _lint_explains_itself(exporter: Exporter, folder: Path) -> None:
    for finding in exporter.lint(exporter.lower(_saved(folder), folder / "out")[0]):
        where = f"finding {finding.node!r} ({finding.op_type})"
        _require(bool(finding.reason.strip()), f"{where} has no reason")
        _require(bool(finding.mend.strip()), f"{where} does not say what would mend it")


def _refuses_external_data(exporter: Exporter, folder: Path) -> None:
    graph = folder / "model.onnx"
    onnx.save(classifier(), graph, save_as_external_data=True, location="weights.bin", size_threshold=0)
    _must_refuse(exporter, graph, folder / "out", "a model with weights in another file")


def _refuses_garbage(exporter: Exporter, folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(b"\x08\x07no model")
    _must_refuse(exporter, graph, folder / "out", "a file that is no ONNX model")


CASES: Final = (
    ExporterCase("declares a placement", _declares_a_placement),
    ExporterCase("fingerprint is stable JSON", _fingerprint_is_stable_json, runs=True),
    ExporterCase("lowers into the folder", _lowers_into_the_folder),
    ExporterCase("session equals the reference", _session_equals_the_reference, runs=True),
    ExporterCase("session repeats itself", _session_repeats_itself, runs=True),
    ExporterCase("profile charges known tensors", _profile_charges_known_tensors, runs=True),
    ExporterCase("lint explains itself", _lint_explains_itself),
    ExporterCase("refuses external data", _refuses_external_data),
    ExporterCase("refuses garbage", _refuses_garbage),
)
"""Every question; a third party's exporter takes them all, but for those of a runtime that is not here."""


def cases(exporter: Exporter) -> tuple[ExporterCase, ...]:
    """Return the questions that are asked of `exporter`."""
    return tuple(case for case in CASES if not (case.runs and exporter.cross))


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ExamError(message)


def _saved(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(classifier().SerializeToString(deterministic=True))
    return path


def _pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, _SIDE, _SIDE, 3), dtype=np.uint8)


def _must_refuse(exporter: Exporter, graph: Path, out: Path, what: str) -> None:
    try:
        exporter.lower(graph, out)
    except EdgeftError:
        return
    raise ExamError(f"lower accepted {what}")
