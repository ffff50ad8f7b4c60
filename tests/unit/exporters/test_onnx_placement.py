"""Probes of the runtime: one Q/DQ graph per rule and per reason of the placement, judged by the optimised graph.

The expected kernels are facts of onnxruntime, written down; where a new version changes its mind, this fails and the
placement needs another look.
"""

import re

import onnx
import pytest
from onnx import parser

from edgeft_exporters.onnx.optimised import OptimisedNode, optimise
from edgeft_exporters.onnx.placement import PLACEMENT

_CONSTANTS = "float s={0.02}, uint8 z={128}, float s2={0.03}, uint8 z2={100}, float s6={0.0235294}, uint8 z0={0}"
_QUANTIZED_X = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"
_OWN = "tq = QuantizeLinear(t, s2, z2) y = DequantizeLinear(tq, s2, z2)"
_SHARED = "tq = QuantizeLinear(t, s, z) y = DequantizeLinear(tq, s, z)"
_POSITIVE = "tq = QuantizeLinear(t, s6, z0) y = DequantizeLinear(tq, s6, z0)"
_CONV = (
    f"int8[8,8,1,1] w={{{','.join('1' * 64)}}}, float[8] ws={{{','.join(['0.1'] * 8)}}}, "
    f"int8[8] wz={{{','.join('0' * 8)}}}, int32[8] b={{{','.join('1' * 8)}}}, "
    f"float[8] bs={{{','.join(['0.002'] * 8)}}}, int32[8] bz={{{','.join('0' * 8)}}}, "
    "float lo={0.}, float hi={6.}"
)
_CONV_DQ = "wd = DequantizeLinear<axis=0>(w, ws, wz) bd = DequantizeLinear<axis=0>(b, bs, bz)"
_MATRIX = (
    f"int8[8,4] w={{{','.join(['1'] * 32)}}}, float[4] ws={{0.1,0.2,0.3,0.4}}, int8[4] wz={{0,0,0,0}}, "
    "int32[4] b={1,2,3,4}, float[4] bs={0.002,0.004,0.006,0.008}, int32[4] bz={0,0,0,0}, float[4] bf={1.,2.,3.,4.}"
)
_MATRIX_DQ = "wd = DequantizeLinear<axis=1>(w, ws, wz) bd = DequantizeLinear<axis=0>(b, bs, bz)"


def run_by_runtime(body: str, constants: str = "", *, x: str = "N,8,6,6", rank: int = 4) -> tuple[OptimisedNode, ...]:
    """Return what onnxruntime runs for `body` between float `x` and a float `y` of that rank."""
    y = ",".join(f"d{axis}" for axis in range(rank))
    everything = ", ".join(filter(None, (_CONSTANTS, constants)))
    text = f'<ir_version: 9, opset_import: ["" : 20]> g (float[{x}] x) => (float[{y}] y) <{everything}> {{ {body} }}'
    return optimise(parser.parse_model(text), "probe")


def kernels(body: str, constants: str = "") -> dict[str, str]:
    """Return kernel -> kind of everything that onnxruntime computes, Q, DQ and moves left out."""
    nodes = run_by_runtime(body, constants)
    return {node.op_type: node.kind for node in nodes if node.kind in {"integer", "float"}}


def matrix_kernels(body: str) -> dict[str, str]:
    nodes = run_by_runtime(f"{_QUANTIZED_X} {_MATRIX_DQ} {body}", _MATRIX, x="N,8", rank=2)
    return {node.op_type: node.kind for node in nodes if node.kind in {"integer", "float"}}


@pytest.mark.parametrize(
    ("operator", "kernel"),
    [
        ("Add(xd, xd)", "QLinearAdd"),
        ("Mul(xd, xd)", "QLinearMul"),
        ("Concat<axis=1>(xd, xd)", "QLinearConcat"),
        ("GlobalAveragePool(xd)", "QLinearGlobalAveragePool"),
        ("AveragePool<kernel_shape=[2,2]>(xd)", "QLinearAveragePool"),
        ("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(xd)", "QLinearAveragePool"),
        ("LeakyRelu<alpha=0.1>(xd)", "QLinearLeakyRelu"),
        ("Sigmoid(xd)", "QLinearSigmoid"),
    ],
)
def test_operators_with_a_rule_become_integer_kernels(operator: str, kernel: str) -> None:
    op_type = re.split(r"[<(]", operator)[0]
    assert PLACEMENT.rule(op_type) is not None
    assert kernels(f"{_QUANTIZED_X} t = {operator} {_OWN}") == {kernel: "integer"}


@pytest.mark.parametrize(
    ("operator", "constants", "rank"),
    [
        ("MaxPool<kernel_shape=[2,2]>(xd)", "", 4),
        ("Transpose<perm=[0,2,3,1]>(xd)", "", 4),
        ("Slice(xd, from, to, axis)", "int64[1] from={0}, int64[1] to={4}, int64[1] axis={1}", 4),
        ("Flatten<axis=1>(xd)", "", 2),
        ("Reshape(xd, shape)", "int64[2] shape={-1, 288}", 2),
        ("Unsqueeze(xd, axes)", "int64[1] axes={4}", 5),
    ],
)
def test_moving_operators_run_on_integers_where_parameters_are_shared(operator: str, constants: str, rank: int) -> None:
    assert PLACEMENT.rule(re.split(r"[<(]", operator)[0]) is not None
    nodes = run_by_runtime(f"{_QUANTIZED_X} t = {operator} {_SHARED}", constants, rank=rank)
    kinds = [node.kind for node in nodes]
    assert kinds.count("quantize") == kinds.count("dequantize") == 1
    assert "float" not in kinds


def test_a_moving_operator_with_two_scales_stays_in_float() -> None:
    assert kernels(f"{_QUANTIZED_X} t = MaxPool<kernel_shape=[2,2]>(xd) {_OWN}") == {"MaxPool": "float"}


@pytest.mark.parametrize(
    "operator", ["HardSwish", "HardSigmoid", "Gelu", "Erf", "Tanh", "Sub", "Div", "Pad", "ReduceMean", "Relu"]
)
def test_operators_with_a_float_reason_stay_in_float(operator: str) -> None:
    assert PLACEMENT.rule(operator) is None
    assert operator in PLACEMENT.float_reasons
    constants = {"Pad": "int64[8] extra={0,0,1,1,0,0,1,1}", "ReduceMean": "int64[2] extra={2,3}"}.get(operator, "")
    second = {"Sub": ", xd", "Div": ", xd", "Pad": ", extra", "ReduceMean": ", extra"}.get(operator, "")
    assert set(kernels(f"{_QUANTIZED_X} t = {operator}(xd{second}) {_OWN}", constants).values()) == {"float"}


@pytest.mark.parametrize(
    "tail",
    [
        f"t = Conv(xd, wd, bd) {_SHARED}",
        f"u = Conv(xd, wd, bd) t = Relu(u) {_POSITIVE}",
        f"u = Conv(xd, wd, bd) t = Clip(u, lo, hi) {_POSITIVE}",
    ],
    ids=["alone", "Relu with zero point 0", "Clip around the range"],
)
def test_conv_becomes_integer_and_absorbs_a_redundant_activation(tail: str) -> None:
    assert kernels(f"{_QUANTIZED_X} {_CONV_DQ} {tail}", _CONV) == {"QLinearConv": "integer"}


@pytest.mark.parametrize(
    "tail",
    [
        "y = Conv(xd, wd, bd)",
        f"u = Conv(xd, wd, bd) t = Relu(u) {_SHARED}",
        "t = Conv(xd, wd, bd) tq = QuantizeLinear(t, s, z) a = DequantizeLinear(tq, s, z) y = Add(a, t)",
    ],
    ids=["no Q", "Relu that the Q does not replace", "a float reader beside the Q"],
)
def test_conv_outside_the_contract_stays_in_float(tail: str) -> None:
    found = kernels(f"{_QUANTIZED_X} {_CONV_DQ} {tail}", _CONV)
    assert "integer" not in found.values()
    assert any(kernel in {"Conv", "FusedConv"} for kernel in found)


@pytest.mark.parametrize("tail", ["y = Gemm(xd, wd, bd)", "y = Gemm(xd, wd)", f"t = Gemm(xd, wd, bd) {_SHARED}"])
def test_gemm_returns_float_or_integers(tail: str) -> None:
    assert matrix_kernels(tail) == {"QGemm": "integer"}


@pytest.mark.parametrize("tail", ["y = Gemm<beta=0.5>(xd, wd, bd)", "y = Gemm(xd, wd, bf)"], ids=["beta", "float bias"])
def test_gemm_outside_the_contract_stays_in_float(tail: str) -> None:
    assert matrix_kernels(tail) == {"Gemm": "float"}


def test_matmul_without_a_q_becomes_an_integer_kernel_that_returns_float() -> None:
    assert matrix_kernels("y = MatMul(xd, wd)") == {"MatMulIntegerToFloat": "integer"}


def test_every_rule_and_reason_is_distinct() -> None:
    names = [rule.op_type for rule in PLACEMENT.rules]
    assert len(set(names)) == len(names)
    assert not set(names) & set(PLACEMENT.float_reasons)


def test_every_operator_of_the_placement_exists_in_onnx() -> None:
    names = {rule.op_type for rule in PLACEMENT.rules} | set(PLACEMENT.float_reasons)
    assert all(onnx.defs.has(name) for name in names)
