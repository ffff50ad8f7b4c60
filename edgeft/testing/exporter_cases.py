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
import onnx
from onnx.reference import ReferenceEvaluator

from edgeft.core.digest import sha256_file
from edgeft.core.exporter import Exporter
from edgeft.quantize.gates import GATES
from edgeft.quantize.placement import Placement
from edgeft.testing.exporter_graphs import ExamError, classifier, images, must_refuse, require, saved
from edgeft.testing.exporter_int8 import answers_stay_near_float, floats_are_named
from edgeft.testing.exporter_lowering import (
    answers_equal_golden_vectors,
    lowering_repeats_itself,
    refuses_foreign_inputs,
    refuses_unknown_operators,
)

__all__ = ["CASES", "ExamError", "ExporterCase", "cases", "classifier"]

_ATOL: Final = 1e-2
"""Scores of the reference and of a runtime that may compute in float16: 2**-11 relative, a few layers deep."""


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


def _declares_a_placement(exporter: Exporter, folder: Path) -> None:
    del folder
    placement = exporter.placement
    require(bool(exporter.name) and exporter.name == exporter.name.lower(), f"name {exporter.name!r} is not lower case")
    require(isinstance(placement, Placement), f"placement is {type(placement).__name__}, not Placement")
    names = [rule.op_type for rule in placement.rules]
    require(len(set(names)) == len(names), f"an operator has two rules: {sorted(names)}")
    both = set(names) & set(placement.float_reasons)
    require(not both, f"{sorted(both)} take integers and have a reason to stay float")
    foreign = set(placement.gates) - GATES
    require(not foreign, f"{sorted(foreign)} cannot be built as gates, {sorted(GATES)} can")
    require(not set(placement.gates) & set(names), "a gate has a rule of its own: say which of both is meant")
    require(not (placement.gates and placement.activation.symmetric), "gates need asymmetric activations")
    for rule in placement.rules:
        weighted = rule.weight is not None
        require(weighted == (rule.weight_axis is not None), f"{rule.op_type}: weight and weight_axis go together")


def _fingerprint_is_stable_json(exporter: Exporter, folder: Path) -> None:
    del folder
    first, second = (json.dumps(exporter.fingerprint(), sort_keys=True, allow_nan=False) for _ in range(2))
    require(first == second, "the fingerprint changes from call to call")
    require(bool(exporter.fingerprint()), "the fingerprint is empty")


def _lowers_into_the_folder(exporter: Exporter, folder: Path) -> None:
    graph, out = saved(folder), folder / "out"
    before = sha256_file(graph)
    files = exporter.lower(graph, out)
    require(bool(files), "lower returned no file")
    for file in files:
        require(file.is_file() and file.stat().st_size > 0, f"{file} is missing or empty")
        require(file.resolve().is_relative_to(out.resolve()), f"{file} is outside {out}")
    require({path for path in out.rglob("*") if path.is_file()} == set(files), "lower left files it does not name")
    require(sha256_file(graph) == before, "lower changed the graph that it was given")


def _session_equals_the_reference(exporter: Exporter, folder: Path) -> None:
    run = exporter.session(exporter.lower(saved(folder), folder / "out")[0], 1)
    reference = ReferenceEvaluator(classifier())
    for count in (1, 3):
        pixels = images(count)
        expected = np.asarray(cast("list[object]", reference.run(None, {"pixels": pixels}))[0])
        found = np.asarray(run({"pixels": pixels})[0])
        require(found.shape == expected.shape, f"scores of shape {found.shape}, expected {expected.shape}")
        error = float(np.abs(found - expected).max())
        require(error <= _ATOL, f"scores differ from the reference by {error:.2g}, more than {_ATOL}")


def _session_repeats_itself(exporter: Exporter, folder: Path) -> None:
    run = exporter.session(exporter.lower(saved(folder), folder / "out")[0], 2)
    pixels = images(2)
    first, second = (np.asarray(run({"pixels": pixels})[0]) for _ in range(2))
    require(bool((first == second).all()), "two runs on the same pixels differ")


def _profile_charges_known_tensors(exporter: Exporter, folder: Path) -> None:
    spent = exporter.profile(saved(folder), 1, {"pixels": images(1)})
    known = {name for node in classifier().graph.node for name in node.output}
    require(set(spent) <= known, f"profile charges {sorted(set(spent) - known)}, which the graph does not make")
    require(bool(spent) and min(spent.values()) >= 0 and sum(spent.values()) > 0, f"profile measured nothing: {spent}")


def _lint_explains_itself(exporter: Exporter, folder: Path) -> None:
    for finding in exporter.lint(exporter.lower(saved(folder), folder / "out")[0]):
        where = f"finding {finding.node!r} ({finding.op_type})"
        require(bool(finding.reason.strip()), f"{where} has no reason")
        require(bool(finding.mend.strip()), f"{where} does not say what would mend it")


def _refuses_external_data(exporter: Exporter, folder: Path) -> None:
    graph = folder / "model.onnx"
    onnx.save(classifier(), graph, save_as_external_data=True, location="weights.bin", size_threshold=0)
    must_refuse(exporter, graph, folder / "out", "a model with weights in another file")


def _refuses_garbage(exporter: Exporter, folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(b"\x08\x07no model")
    must_refuse(exporter, graph, folder / "out", "a file that is no ONNX model")


CASES: Final = (
    ExporterCase("declares a placement", _declares_a_placement),
    ExporterCase("fingerprint is stable JSON", _fingerprint_is_stable_json, runs=True),
    ExporterCase("lowers into the folder", _lowers_into_the_folder),
    ExporterCase("session equals the reference", _session_equals_the_reference, runs=True),
    ExporterCase("session repeats itself", _session_repeats_itself, runs=True),
    ExporterCase("profile charges known tensors", _profile_charges_known_tensors, runs=True),
    ExporterCase("lint explains itself", _lint_explains_itself),
    ExporterCase("answers equal golden vectors", answers_equal_golden_vectors),
    ExporterCase("int8 answers stay near float", answers_stay_near_float),
    ExporterCase("lint names what stays float", floats_are_named),
    ExporterCase("lowering repeats itself", lowering_repeats_itself),
    ExporterCase("refuses foreign inputs", refuses_foreign_inputs, runs=True),
    ExporterCase("refuses unknown operators", refuses_unknown_operators),
    ExporterCase("refuses external data", _refuses_external_data),
    ExporterCase("refuses garbage", _refuses_garbage),
)
"""Every question; a third party's exporter takes them all, but for those of a runtime that is not here."""


def cases(exporter: Exporter) -> tuple[ExporterCase, ...]:
    """Return the questions that are asked of `exporter`."""
    return tuple(case for case in CASES if not (case.runs and exporter.cross))
