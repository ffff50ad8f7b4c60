"""The ordered passes that turn any float graph into one a runtime can fuse.

onnxscript and onnx_ir do what they have (constant folding, BatchNorm and Pad into Conv, no-ops, MatMul + Add as Gemm,
identities, dead nodes); edgeft.graph.passes does the rest. QuantizeLinear and DequantizeLinear are never folded.
"""

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import (
    DeduplicateInitializersPass,
    IdentityEliminationPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    ShapeInferencePass,
    TopologicalSortPass,
)
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import (
    affine_conv_fusion_rule,
    conv_affine_fusion_rule,
    matmul_add_to_gemm_rule,
    transpose_b_matmul_add_to_gemm_rule,
)

from edgeft.graph.passes.flatten_reshapes import flatten_reshapes_
from edgeft.graph.passes.pool_spatial_means import pool_spatial_means_
from edgeft.graph.passes.report import PassReport

_FOLD_UP_TO = 1 << 26
"""Elements of a constant worth computing ahead: above any layer's weight here, so transposed weights are folded too."""
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
_BY_RULES = (
    affine_conv_fusion_rule,
    conv_affine_fusion_rule,
    transpose_b_matmul_add_to_gemm_rule,
    matmul_add_to_gemm_rule,
)
_OURS: tuple[Callable[[ir.Model], PassReport], ...] = (pool_spatial_means_, flatten_reshapes_)


def simplify_(model: ir.Model) -> tuple[PassReport, ...]:
    """Simplify `model` in place; outputs change by float rounding only. Return what edgeft's own passes did.

    Every rewrite keeps graph inputs and outputs, their names and types. Running it again changes nothing.
    """
    optimize_ir(
        model,
        input_size_limit=_FOLD_UP_TO,
        output_size_limit=_FOLD_UP_TO,
        should_fold=lambda node: False if node.op_type in _KEPT else None,
    )
    RewritePass(_BY_RULES)(model)
    ShapeInferencePass()(model)
    reports = tuple(run(model) for run in _OURS)
    for tidy in (
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
        RemoveUnusedOpsetsPass(),
        DeduplicateInitializersPass(),
        TopologicalSortPass(),
        ShapeInferencePass(),
    ):
        tidy(model)
    return reports


def dynamic_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the tensors of `model` whose rank, or size past the first axis, is not known before the model runs."""
    return tuple(
        value.name or node.op_type
        for node in model.graph
        for value in node.outputs
        if value.name and (value.shape is None or not all(isinstance(size, int) for size in value.shape[1:]))
    )
