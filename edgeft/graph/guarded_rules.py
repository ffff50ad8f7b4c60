"""Rewrite rules of onnxscript, left out at operators where they would change what a graph computes, or break it.

same_pads       padding k - 1 is too little for a kernel that reaches over d (k - 1): dilated kernels are left out
no ops          x + c, x - c, x * c and x / c are taken for x where c is near 0 or 1, but log(x + 1e-10) is not
                log(x): they are where c is 0 or 1
gemm            A B + C: what is added must fit the product's own shape, or Gemm cannot add it
affine          (W x + b) s + o = (s W) x + (s b + o): o [1, 1, 1, 1] would make the bias [1, 1, 1, C]; and the new
                weights are named after the old ones, so convolutions that share weights would get the same
"""

from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter.pattern import RewriteRule
from onnxscript.rewriter.rules import common as rules

_BIASED = 3
_MATRIX = 2


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


def _changes_values(node: ir.Node) -> bool:
    """Return whether no constant of an Add or Sub is all 0, or none of a Mul or Div all 1."""
    if node.op_type not in {"Add", "Sub", "Mul", "Div"}:
        return True
    nothing = 0 if node.op_type in {"Add", "Sub"} else 1
    tensors = [ir.convenience.get_const_tensor(value) for value in node.inputs if value is not None]
    return not any(tensor is not None and bool((tensor.numpy() == nothing).all()) for tensor in tensors)


def _does_not_fit_gemm(node: ir.Node) -> bool:
    """Return whether one operand of an Add is not known to be added to the other, a product, without widening it."""
    if node.op_type != "Add":
        return True
    for product, added in (node.inputs, node.inputs[::-1]):
        maker = None if product is None else product.producer()
        if maker is None or maker.op_type != "MatMul" or added is None or product is None:
            continue
        if product.shape is None or added.shape is None or len(added.shape) > _MATRIX:
            return True
        return any(
            size not in (1, own) for size, own in zip(reversed(added.shape), reversed(product.shape), strict=False)
        )
    return True


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


no_op_rules = tuple(
    Guarded(rule, _changes_values)
    for rule in (rules.add_0_rule, rules.sub_0_rule, rules.mul_by_1_rule, rules.div_by_1_rule)
)
gemm_rules = tuple(
    Guarded(rule, _does_not_fit_gemm)
    for rule in (rules.transpose_b_matmul_add_to_gemm_rule, rules.matmul_add_to_gemm_rule)
)
same_pads_rule = Guarded(rules.normalize_pad_format_conv_rule, _is_dilated_same)
affine_conv_rule = Guarded(rules.affine_conv_fusion_rule, _breaks_affine)
conv_affine_rule = Guarded(rules.conv_affine_fusion_rule, _breaks_affine)
