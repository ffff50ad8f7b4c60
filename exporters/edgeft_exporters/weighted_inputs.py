"""The rules of targets that want integers on the inputs of weighted operators, and nowhere else."""

from typing import Final

from edgeft.quantize.placement import OpRule, OutputRule

WEIGHTED_INPUTS: Final = (
    OpRule("Conv", (0,), OutputRule.FLOAT, weight=1, weight_axis=0, bias=2),
    OpRule("Gemm", (0,), OutputRule.FLOAT, weight=1, weight_axis=1, weight_axis_transposed=0, bias=2),
    OpRule("MatMul", (0,), OutputRule.FLOAT, weight=1, weight_axis=1),
)
