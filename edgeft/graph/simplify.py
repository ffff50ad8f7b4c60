"""The ordered passes that turn any float graph into one a runtime can fuse.

onnxscript and onnx_ir do what they have (constant folding, BatchNorm and Pad into Conv, no-ops, MatMul + Add as Gemm,
dead nodes); edgeft.graph.passes does the rest. Rules are named one by one, in groups that must run in this
order: a zero bias shared by convolutions would keep BatchNorm from being folded. onnxscript's default set also rewrites
Flatten as Reshape and drops a Gemm's zero bias, which bias correction fills later. QuantizeLinear and DequantizeLinear
are never folded.
"""

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import (
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    ShapeInferencePass,
    TopologicalSortPass,
)
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

from edgeft.graph.guarded_rules import affine_conv_rule, conv_affine_rule, gemm_rules, no_op_rules, same_pads_rule
from edgeft.graph.passes.flatten_reshapes import flatten_reshapes_
from edgeft.graph.passes.merge_common import merge_common_
from edgeft.graph.passes.plain_reshapes import plain_reshapes_
from edgeft.graph.passes.pool_spatial_means import pool_spatial_means_
from edgeft.graph.passes.remove_identities import remove_identities_
from edgeft.graph.passes.report import PassReport

_FOLD_UP_TO = 1 << 26
"""Elements of a constant worth computing ahead: above any layer's weight here, so transposed weights are folded too."""
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NO_OPS = (
    *no_op_rules,
    *(rules.dropout_inference_rule, rules.dropout_zero_rule),
    *(rules.no_op_cast_rule, rules.no_op_expand_rule, rules.no_op_transpose_rule),
    *(rules.remove_optional_bias_from_conv_rule, rules.remove_optional_bias_from_conv_transpose_rule),
)
_SHAPES = (
    *(rules.cast_cast_rule, rules.transpose_transpose_rule, rules.reshape_reshape_rule, rules.unsqueeze_unsqueeze_rule),
    *(rules.collapse_slice_rule, rules.collapse_slice2_rule, rules.materialize_reshape_shape_rule),
)
_CLIPS = (
    *(rules.min_min_rule, rules.max_max_rule, rules.min_max_rule, rules.max_min_rule),
    *(rules.successive_relu_rule, rules.successive_clip_rule),
    *(rules.successive_relu_clip_rule, rules.successive_clip_relu_rule),
)
_LAYERS = (
    *(same_pads_rule, rules.fuse_pad_into_conv_rule),
    *(rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_conv_transpose_rule),
    *(rules.fuse_batchnorm_into_gemm_rule, affine_conv_rule, conv_affine_rule),
    *gemm_rules,
)
_GROUPS = (_NO_OPS, _SHAPES, _CLIPS, _LAYERS)
_ROUNDS = 16
"""More than any chain of folds needs; a bound, should two rules ever undo each other."""
_OURS: tuple[Callable[[ir.Model], PassReport], ...] = (
    *(merge_common_, pool_spatial_means_, plain_reshapes_, flatten_reshapes_, remove_identities_),
)


def simplify_(model: ir.Model) -> tuple[PassReport, ...]:
    """Simplify `model` in place; outputs change by float rounding only. Return what edgeft's own passes did.

    Every rewrite keeps graph inputs and outputs, their names and types. Running it again changes nothing.
    """
    InlinePass()(model)
    remove_identities_(model)
    fold_constants(
        model,
        onnx_shape_inference=True,
        input_size_limit=_FOLD_UP_TO,
        output_size_limit=_FOLD_UP_TO,
        should_fold=lambda node: False if node.op_type in _KEPT else None,
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _rewrite_(model)
    ShapeInferencePass()(model)
    DeduplicateInitializersPass()(model)
    reports = tuple(run(model) for run in _OURS)
    for tidy in (
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        RemoveUnusedNodesPass(),
        RemoveUnusedOpsetsPass(),
        DeduplicateInitializersPass(),
        TopologicalSortPass(),
        ShapeInferencePass(),
    ):
        tidy(model)
    return reports


def _rewrite_(model: ir.Model) -> None:
    """Apply the rules until none fires: one fold uncovers the next, and a rule set walks the graph once."""
    for _ in range(_ROUNDS):
        fired = [RewritePass(group)(model).modified for group in _GROUPS]
        RemoveUnusedNodesPass()(model)
        if not any(fired):
            return


def dynamic_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the tensors of `model` whose rank, or size past the first axis, is not known before the model runs."""
    return tuple(
        value.name or node.op_type
        for node in model.graph
        for value in node.outputs
        if value.name and (value.shape is None or not all(isinstance(size, int) for size in value.shape[1:]))
    )
