"""Rewrite rules of onnxscript, left out at operators where they would change what a graph computes, or break it.

same_pads       padding k - 1 is too little for a kernel that reaches over d (k - 1): dilated kernels are left out
affine          (W x + b) s + o = (s W) x + (s b + o): o [1, 1, 1, 1] would make the bias [1, 1, 1, C]; and the new
                weights are named after the old ones, so convolutions that share weights would get the same
"""

from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter.pattern import RewriteRule
from onnxscript.rewriter.rules import common as rules

_BIASED = 3


class Guarded(RewriteRule):
    """A rule, left out where `refuses` says so.

    Args:
        rule: of onnxscript.
        refuses: a function of the last operator of what the rule would replace.
    """

    def __init__(self, rule: RewriteRule, refuses: Callable[[ir.Node], bool]) -> None:
        vars(self).update(vars(rule))  # the same rule; its own __init__ takes what it was once made of
        self._refuses = refuses

    def try_rewrite(
        self,
        model: ir.Model,
        graph_or_function: ir.Graph | ir.Function,
        node: ir.Node,
        **options: Any,  # noqa: ANN401 - the rule's own
    ) -> Any:  # noqa: ANN401 - as the rule's own
        """Return what replaces the operators that end with `node`, or None."""
        return None if self._refuses(node) else super().try_rewrite(model, graph_or_function, node, **options)


def _is_dilated_same(node: ir.Node) -> bool:
    """Return whether `node` pads automatically and its kernel has holes."""
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return same and any(size != 1 for size in node.attributes.get_ints("dilations", []))


def _breaks_affine(node: ir.Node) -> bool:
    """Return whether a bias would not stay [C], or the names of the new weights are taken."""
    chain = [node, *_makers(node), *(before for maker in _makers(node) for before in _makers(maker))]
    added = [value for each in chain if each.op_type in {"Add", "Mul"} for value in each.inputs]
    if node.op_type == "Add" and any(
        value is not None and value.const_value is not None and len(value.const_value.shape) > 1 for value in added
    ):
        return True
    taken = node.graph.initializers if isinstance(node.graph, ir.Graph) else {}
    convs = [each.inputs for each in chain if each.op_type == "Conv" and len(each.inputs) == _BIASED]
    return any(
        f"{weight.name}_scaled" in taken or f"{bias.name}_offset" in taken
        for _, weight, bias in convs
        if weight is not None and bias is not None
    )


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the operators that make the inputs of `node`."""
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None:
            yield maker


same_pads_rule = Guarded(rules.normalize_pad_format_conv_rule, _is_dilated_same)
affine_conv_rule = Guarded(rules.affine_conv_fusion_rule, _breaks_affine)
conv_affine_rule = Guarded(rules.conv_affine_fusion_rule, _breaks_affine)
