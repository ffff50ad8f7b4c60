"""Questions about int8: a graph quantized by the exporter's own placement answers as in float; no float is silent."""

from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from edgeft.core.exporter import Exporter
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.static import quantize_static, static_method
from edgeft.testing.exporter_graphs import WIDE, classifier, images, require, saved
from edgeft.testing.exporter_lowering import answers

_IMAGES = 32
_ATOL: Final = 0.05
"""Of a score: 8 bits for weights and activations of a layer or two move logits by some hundredths."""
_ASKED = "the exam asks for it"


def answers_stay_near_float(exporter: Exporter, folder: Path) -> None:
    """Ask for scores of the quantized, lowered graph near those of the float graph."""
    model = _quantized(exporter)
    if model is None:
        return
    run = answers(exporter, exporter.lower(saved(folder, model), folder / "out")[0])
    if run is None:
        return
    expected = cast("list[object]", ReferenceEvaluator(classifier(WIDE)).run(None, {"pixels": images(3)}))
    error = float(np.abs(run(images(3)) - np.asarray(expected[0])).max())
    require(error <= _ATOL, f"int8 scores differ from float by {error:.2g}, more than {_ATOL}")


def floats_are_named(exporter: Exporter, folder: Path) -> None:
    """Ask for a finding about the one operator with a weight that was left in float."""
    model = _quantized(exporter, head=_ASKED)
    if model is None:
        return
    lowered = exporter.lower(saved(folder, model), folder / "out")[0]
    found = {finding.node for finding in exporter.lint(lowered)}
    require(any("head" in node or "logits" in node for node in found), f"lint is silent about head, it names {found}")


def _quantized(exporter: Exporter, **keep_float: str) -> onnx.ModelProto | None:
    """Return the wide classifier in int8, None for a target that takes nothing in integers and says so."""
    method = replace(static_method("minmax", _IMAGES), keep_float=keep_float)
    try:
        return quantize_static(classifier(WIDE), exporter.placement, images(_IMAGES), method).model
    except QuantizationError as error:
        require(exporter.name in str(error), f"the refusal does not name the target {exporter.name}: {error}")
        return None
