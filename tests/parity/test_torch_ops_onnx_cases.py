"""Every operator of the torch executor against ONNX's own node tests; `docs/quantization.md` states the counts.

Left out by rule: tensors of types that torch has not (strings, sequences, 4-bit and 8-bit floats, bfloat16, unsigned
integers above 8 bits, which torch stores but cannot calculate with), and definitions older than opset 13. Left out by
name, each with its reason: `EXCLUDED`. Nothing else is.
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
from onnx.backend.test.case import node as onnx_cases
from onnx.backend.test.case.test_case import TestCase

from edgeft.graph.module import OLDEST_OPSET, GraphModule
from edgeft.graph.torch_ops.table import OPERATORS

EXCLUDED: dict[str, str] = {}
KNOWN_TYPES = frozenset(
    {
        *(np.dtype(kind) for kind in ("float16", "float32", "float64", "bool")),
        *(np.dtype(kind) for kind in ("int8", "int16", "int32", "int64", "uint8")),
    }
)


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
        return "its function is made of operators that are not covered"
    arrays = [array for given, expected in case.data_sets for array in (*given, *expected)]
    if not all(isinstance(array, np.ndarray | np.generic) and array.dtype in KNOWN_TYPES for array in arrays):
        return "its types are not torch's"
    if opset(case) < OLDEST_OPSET:
        return "its definition is older than opset 13"
    return EXCLUDED.get(case.name)


def opset(case: TestCase) -> int:
    """Return the case's opset, or 13 where its operators' definitions are still those of 13."""
    (version,) = [entry.version for entry in case.model.opset_import if entry.domain == ""]
    same = (
        all(onnx.defs.get_schema(node.op_type, OLDEST_OPSET).since_version <= version for node in case.model.graph.node)
        if version < OLDEST_OPSET
        else True
    )
    return max(version, OLDEST_OPSET) if same else version


def run(case: TestCase) -> None:
    model = ir.from_proto(case.model)
    model.opset_imports[""] = opset(case)
    module = GraphModule(model, trainable=[])
    for given, expected in case.data_sets:
        feeds = {name: torch.tensor(array) for name, array in zip(module.inputs, given, strict=True)}
        found = module(feeds)
        for name, array in zip(module.outputs, expected, strict=True):
            result = found[name].numpy()
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
