"""Every operator of the torch executor against ONNX's own node tests; `docs/quantization.md` states the counts.

Left out by rule: types that the executor has not (strings, sequences, optionals, bfloat16, floats and integers below 8
bits, unsigned integers above 8 bits, which torch stores but cannot calculate with), and definitions by functions made
of operators that it has not. Left out by name, each with its reason: `EXCLUDED`. Nothing else is.
"""

import importlib
import pkgutil
import warnings
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.case import node as onnx_cases
from onnx.backend.test.case.test_case import TestCase

from edgeft.graph.module import OLDEST_OPSET, GraphModule
from edgeft.graph.torch_ops.table import OPERATORS

DILATED = "AveragePool with dilations, which torch has not and no net here uses"
TRAINING = "training mode: graphs that ship are at inference"
SECOND_OUTPUT = "an output that no net here reads"
OLD = "a definition older than opset 13, which the executor refuses"
EMPTY = "the extreme of no values, which torch refuses"
FUNCTION, TYPE = "its function is made of operators that are not covered", "its types are not torch's"
EXCLUDED = {
    "test_averagepool_2d_dilations": DILATED,
    "test_averagepool_3d_dilations_small": DILATED,
    **{
        f"test_averagepool_3d_dilations_large_count_include_pad_is_{count}_ceil_mode_is_{ceil}": DILATED
        for count in (0, 1)
        for ceil in (True, False)
    },
    "test_batchnorm_epsilon_training_mode": TRAINING,
    "test_batchnorm_example_training_mode": TRAINING,
    "test_dropout_default_old": OLD,
    "test_dropout_random_old": OLD,
    "test_dropout_default_mask": SECOND_OUTPUT,
    "test_dropout_default_mask_ratio": SECOND_OUTPUT,
    "test_maxpool_with_argmax_2d_precomputed_pads": SECOND_OUTPUT,
    "test_maxpool_with_argmax_2d_precomputed_strides": SECOND_OUTPUT,
    "test_reduce_max_empty_set": EMPTY,
    "test_reduce_max_empty_set_bool": EMPTY,
    "test_reduce_min_empty_set": EMPTY,
    "test_training_dropout": TRAINING,
    "test_training_dropout_default": TRAINING,
    "test_training_dropout_default_mask": TRAINING,
    "test_training_dropout_mask": TRAINING,
    "test_training_dropout_zero_ratio": TRAINING,
    "test_training_dropout_zero_ratio_mask": TRAINING,
}
FLOATS, INTEGERS = ("float16", "float32", "float64"), ("int8", "int16", "int32", "int64", "uint8")
KNOWN_TYPES = frozenset(np.dtype(kind) for kind in (*FLOATS, *INTEGERS, "bool"))
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
QUANTIZED_TYPES = KNOWN_TYPES | {np.dtype("uint16")}  # which only these two calculate with


@cache
def modules() -> dict[str, str]:
    """Operator in lower case -> the module of onnx that holds its cases."""
    names = [module.name for module in pkgutil.iter_modules(onnx_cases.__path__)]
    return {name.replace("_", ""): name for name in names} | {"range": "rangeop"}


@cache
def cases_of(op_type: str) -> tuple[TestCase, ...]:
    """Return onnx's cases of one operator, and those of its definition as a function of other operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx divides by zero on purpose
        importlib.import_module(f"{onnx_cases.__name__}.{modules()[op_type.lower()]}")
    single = {
        case.name: case
        for case in onnx_cases._NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type == op_type
    }
    expanded = [
        case
        for case in onnx_cases._NodeTestCases
        if case.name not in single and case.name.partition("_expanded")[0] in single
    ]
    return (*single.values(), *expanded)


def left_out(case: TestCase) -> str | None:
    """Return why `case` is not run, or None."""
    nodes = case.model.graph.node
    if any(node.op_type not in OPERATORS or node.domain not in {"", "ai.onnx"} for node in nodes):
        return FUNCTION
    known = QUANTIZED_TYPES if {node.op_type for node in nodes} <= QUANTIZERS else KNOWN_TYPES
    arrays = [as_array(value) for given, expected in case.data_sets for value in (*given, *expected)]
    if not all(array is not None and array.dtype in known for array in arrays):
        return TYPE
    return EXCLUDED.get(case.name)


def as_array(value: object) -> np.ndarray | None:
    """Return what a case holds as an array, or None where it is a sequence or an optional."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def opset(case: TestCase) -> int:
    """Return the case's opset, or 13 where it is older: its definition must still be that of 13."""
    (version,) = [entry.version for entry in case.model.opset_import if entry.domain == ""]
    for node in case.model.graph.node:
        assert onnx.defs.get_schema(node.op_type, max(version, OLDEST_OPSET)).since_version <= version
    return max(version, OLDEST_OPSET)


def run(case: TestCase) -> None:
    model = ir.from_proto(case.model)
    model.opset_imports[""] = opset(case)
    module = GraphModule(model, trainable=[])
    for given, expected in case.data_sets:
        feeds = {name: torch.tensor(as_array(value)) for name, value in zip(module.inputs, given, strict=True)}
        found = module(feeds)
        for name, value in zip(module.outputs, expected, strict=True):
            result, array = found[name].numpy(), as_array(value)
            assert array is not None
            assert result.dtype == array.dtype, name
            assert result.shape == array.shape, name
            np.testing.assert_allclose(result, array, rtol=case.rtol, atol=case.atol)  # onnx's own tolerance


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_the_operator_passes_onnx_own_tests(op_type: str) -> None:
    chosen = [case for case in cases_of(op_type) if left_out(case) is None]
    assert chosen, f"onnx has no test of {op_type} that torch can run"
    failed = {}
    for case in chosen:
        try:
            run(case)
        except Exception as error:  # noqa: BLE001 - every case is to be tried
            failed[case.name] = f"{type(error).__name__}: {error}"
    assert failed == {}
