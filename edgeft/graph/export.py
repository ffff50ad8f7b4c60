"""The export stage: a checkpoint becomes the deployment graph that every later stage works on.

Writes `model.onnx` and `graph.json`. Input `pixels` uint8 [N, H, W, 3], or `input_ids` and `attention_mask` int64
[N, L]; output `scores` float32 [N, K]; the tensor before the temperature is `logits` float32 [N, K]. The graph is
compared with torch on real train and validation rows.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from torch import nn

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError, EdgeftError
from edgeft.core.events import Message, Progress
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset, Part
from edgeft.graph.config import ExportConfig
from edgeft.graph.endpoints import LOGITS, give_scores_, take_pixels_
from edgeft.graph.execute import open_session
from edgeft.graph.passes.forget_origin import forget_origin_
from edgeft.graph.passes.name_layers import name_layers_
from edgeft.graph.passes.report import PassReport
from edgeft.graph.save import save
from edgeft.graph.simplify import dynamic_tensors, simplify_
from edgeft.graph.taps import with_outputs
from edgeft.graph.trace import trace, trace_texts
from edgeft.models.checkpoint import load
from edgeft.models.predict import logits
from edgeft.runtime.preprocess import InputContract
from edgeft.runtime.text import TextContract

MODEL, META = "model.onnx", "graph.json"
_SCHEMA = 1
_TOLERANCE = 1e-3
"""Largest accepted logit difference, relative to the largest logit (at least 1). Float32 sums in another order and
folded BatchNorms differ by some 1e-6 a layer; a wrong padding, axis or layout by 1e-2 and more."""


def run(ctx: Context, inputs: Inputs, config: ExportConfig) -> StageResult:
    """Export `inputs["checkpoint"]` and compare it with torch on train and validation rows of `inputs["data"]`.

    Raises:
        EdgeftError: torch cannot export the model, or the graph's logits are not torch's.
        DataError: an input folder is damaged.
    """
    ctx.emit(Progress("export", 0, 2, "torch to ONNX"))
    module, meta = load(inputs["checkpoint"])
    if isinstance(meta.input, InputContract):
        model, reports, dynamic = build(module, meta.input, config.opset)
    else:
        model, reports, dynamic = build_text(module, meta.input, config.opset)
    size = save(model, ctx.folder / MODEL)
    ctx.emit(Progress("export", 1, 2, "comparing with torch"))
    rows = _real_rows(inputs["data"], config.check_images)
    error = _logit_error(model, rows, logits(inputs["checkpoint"], rows, ctx.threads), ctx.threads)
    nodes = dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
    facts: dict[str, Json] = {
        "schema": _SCHEMA,
        "classes": list(meta.classes),
        "input": meta.input.to_json(),
        "opset": config.opset,
        "nodes": dict(nodes),
        "max_abs_logit_error": error,
        "compared_rows": len(rows),
        "dynamic_tensors": list(dynamic),
    }
    write_atomic(ctx.folder / META, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    ctx.emit(Message(f"logits equal torch's within {error:.1e} on {len(rows)} rows"))
    measurements: dict[str, Json] = {"max_abs_logit_error": error, "size_bytes": size, "nodes": sum(nodes.values())}
    return StageResult(ctx.folder, measurements, _notes(reports, dynamic))


def build(
    module: nn.Module, contract: InputContract, opset: int
) -> tuple[onnx.ModelProto, tuple[PassReport, ...], tuple[str, ...]]:
    """Return the deployment graph of `module`, what the passes did, and which tensors have sizes open past the batch.

    Args:
        module: a classifier in eval mode: float32 [N, 3, H, W] to float32 [N, K].
        contract: size and normalisation of its input.
        opset: version of the default ONNX domain.

    Raises:
        EdgeftError: torch cannot export the module, or it is not a classifier.
    """
    model = trace(module, contract.height, contract.width, opset)
    reports = simplify_(model)
    name_layers_(model)
    take_pixels_(model, contract.mean, contract.std)
    return _finished(model), reports, dynamic_tensors(model)


def build_text(
    module: nn.Module, contract: TextContract, opset: int
) -> tuple[onnx.ModelProto, tuple[PassReport, ...], tuple[str, ...]]:
    """Return the deployment graph of a text classifier, what the passes did, and nothing more: lengths are open.

    Args:
        module: an `edgeft.models.text.TextClassifier` in eval mode.
        contract: names its inputs.
        opset: version of the default ONNX domain.

    Raises:
        EdgeftError: torch cannot export the module, or it is not a classifier.
    """
    from edgeft.models import text  # brings transformers, which image models do without

    if not isinstance(module, text.TextClassifier):
        raise EdgeftError(f"{type(module).__name__} is no text classifier")
    text.set_attention_(module, "eager")
    model = trace_texts(module, contract.inputs, opset)
    reports = simplify_(model)
    name_layers_(model)
    return _finished(model), reports, ()


def _finished(model: ir.Model) -> onnx.ModelProto:
    give_scores_(model)
    forget_origin_(model)
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise EdgeftError(f"the exported graph is not valid ONNX: {error}") from error
    return proto


def _real_rows(data: Path, count: int) -> Part:
    """Return up to `count` train and validation rows, spread evenly over the data set."""
    dataset = Dataset.open(data)
    rows = np.sort(np.concatenate([dataset.indices("train"), dataset.indices("val")]))
    if not len(rows):
        raise DataError(f"{data}: no train or validation row to compare the graph on")
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return dataset.part(rows[chosen])


def _logit_error(model: onnx.ModelProto, rows: Part, expected: npt.NDArray[np.float32], threads: int) -> float:
    """Return max |logits - expected|, over the whole batch at once and row by row.

    Raises:
        EdgeftError: the difference is more than rounding.
    """
    session = open_session(with_outputs(model, [LOGITS]), threads)
    whole = session.run([LOGITS], rows[:])[0]
    single = np.concatenate([session.run([LOGITS], rows[i : i + 1])[0] for i in range(len(rows))])
    error = float(max(np.abs(whole - expected).max(), np.abs(single - expected).max()))
    limit = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not error <= limit:  # NaN fails
        raise EdgeftError(
            f"the exported graph's logits differ from torch's by {error:.2g} on {len(rows)} rows, where rounding "
            f"explains {limit:.2g}",
            hint="try another export.opset, and report the architecture",
        )
    return error


def _notes(reports: tuple[PassReport, ...], dynamic: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a reader must know: nodes that stayed as they were, and open sizes."""
    refused = [f"{report.name} left {item.node}: {item.reason}" for report in reports for item in report.refused]
    if dynamic:
        refused.append(f"{len(dynamic)} tensors have sizes open past the batch axis, first {dynamic[0]}")
    return tuple(refused)
