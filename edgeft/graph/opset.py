"""Bring a model to an opset that passes, calibration and runtime share: 18 to 23 stay, 11 to 17 become 18.

18 is the lowest that onnxscript's rewrite rules are written for (axes of reductions are inputs from there on); 23 the
highest that the fusions of the target were probed with. onnx's own converter does the work: onnxscript's knows opset 18
and later only.
"""

import re

import onnx
import onnx.inliner
from onnx import version_converter

from edgeft.core.errors import DataError

OLDEST, LOWEST, HIGHEST = 11, 18, 23
DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})
"""Of ONNX's own operators. One of another domain may bear the name of one of these and compute something else."""
_OPERATOR = re.compile(r"(?:for|operator|Op) (\w+)")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default ONNX domain that `model` imports, 0 where it imports none."""
    return max((item.version for item in model.opset_import if item.domain in DEFAULT_DOMAINS), default=0)


def to_common_opset(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return `model` at opset 18 to 23.

    Args:
        model: left as it is; its opset must be 11 to 23.
        name: how the model is called in messages.

    Raises:
        DataError: the opset is outside that range, or an operator cannot be converted; it is named.
    """
    version = opset_of(model)
    if not OLDEST <= version <= HIGHEST:
        raise DataError(
            f"{name}: opset {version}, expected {OLDEST} to {HIGHEST}", hint="export the model at opset 18 or 20"
        )
    if version >= LOWEST:
        return model
    try:
        converted = version_converter.convert_version(onnx.inliner.inline_local_functions(model), LOWEST)
        onnx.checker.check_model(converted)
    except Exception as error:  # the C++ converter and the checker share no public base
        text = " ".join(str(error).split())
        operator = next((word for word in _OPERATOR.findall(text) if _occurs(model, word)), None)
        what = f"operator {operator} cannot" if operator else "it cannot"
        raise DataError(
            f"{name}: {what} be brought from opset {version} to {LOWEST}: {text}",
            hint="export the model at opset 18 or later",
        ) from error
    return converted


def at_least(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Return `model` at opset `version` or above; the model itself where it is there already.

    Raises:
        DataError: it cannot be brought there.
    """
    if opset_of(model) >= version:
        return model
    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # the C++ converter has no public base
        raise DataError(
            f"the graph cannot be brought from opset {opset_of(model)} to {version}: {' '.join(str(error).split())}",
            hint=f"export the model at opset {version}",
        ) from error


def _occurs(model: onnx.ModelProto, op_type: str) -> bool:
    return any(node.op_type == op_type for node in model.graph.node)
