"""Questions about the files that an exporter writes: what they answer, that they repeat, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator

from edgeft.core.digest import sha256_file
from edgeft.core.errors import EdgeftError
from edgeft.core.exporter import Exporter
from edgeft.testing.exporter_graphs import GOLDEN, ExamError, classifier, images, require, saved

_ATOL: Final = 1e-2
"""A runtime may compute in float16: 2**-11 relative, a few layers deep."""
_STRANGER = "Swirl"


def answers(exporter: Exporter, file: Path) -> Callable[[Any], np.ndarray] | None:
    """Return what runs the lowered `file`: the target's runtime, or for another device onnx's own evaluator.

    None where the file is for another device and is no ONNX model: nothing here can run it.
    """
    if not exporter.cross:
        run = exporter.session(file, 1)
        return lambda pixels: np.asarray(run({"pixels": pixels})[0])
    if file.suffix != ".onnx":
        return None
    reference = ReferenceEvaluator(str(file))
    return lambda pixels: np.asarray(cast("list[object]", reference.run(None, {"pixels": pixels}))[0])


def answers_equal_golden_vectors(exporter: Exporter, folder: Path) -> None:
    """Ask for scores that were computed once, elsewhere."""
    run = answers(exporter, exporter.lower(saved(folder), folder / "out")[0])
    if run is not None:
        error = float(np.abs(run(images(2)) - np.array(GOLDEN)).max())
        require(error <= _ATOL, f"scores differ from golden vectors by {error:.2g}, more than {_ATOL}")


def lowering_repeats_itself(exporter: Exporter, folder: Path) -> None:
    """Ask for the same bytes a second time, and for an ONNX file that is as it was where it is lowered again."""
    graph = saved(folder)
    first, second = (exporter.lower(graph, folder / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        require(sha256_file(one) == sha256_file(other), f"{one.name} differs from run to run")
    if first[0].suffix == ".onnx":
        again = exporter.lower(first[0], folder / "again")[0]
        require(sha256_file(again) == sha256_file(first[0]), "lowering what was lowered changes it")


def refuses_foreign_inputs(exporter: Exporter, folder: Path) -> None:
    """Ask for an error, not for an answer, where an input has another name, type or shape."""
    run = exporter.session(exporter.lower(saved(folder), folder / "out")[0], 1)
    pixels = images(1)
    strangers: dict[str, dict[str, Any]] = {
        "another name": {"picture": pixels},
        "another type": {"pixels": pixels.astype(np.float64)},
        "another shape": {"pixels": pixels[:, :, :5]},
    }
    for what, inputs in strangers.items():
        try:
            run(inputs)
        except Exception:  # noqa: BLE001, S112 - runtimes share no base; that it raises is what is asked
            continue
        raise ExamError(f"the session answered to an input of {what}")


def refuses_unknown_operators(exporter: Exporter, folder: Path) -> None:
    """Ask for a refusal that names an operator which no runtime knows."""
    graph = saved(folder, _strange())
    try:
        exporter.lower(graph, folder / "out")
    except EdgeftError as error:
        require(_STRANGER in str(error), f"the refusal does not name the operator {_STRANGER}: {error}")
        return
    raise ExamError(f"lower accepted the unknown operator {_STRANGER}")


def _strange() -> ModelProto:
    model = classifier()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = _STRANGER, "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model
