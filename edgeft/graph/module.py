"""An ONNX graph as a torch module: the graph that ships is the graph that is trained.

    module = GraphModule(model, trainable=["conv.weight", "conv.bias"])
    loss(module({"x": images})["logits"]).backward()

Each node is one call of its function in `edgeft.graph.torch_ops`; a tensor is dropped after its last use, so that
memory is what autograd itself keeps. Initializers keep their names: `module.tensor(name)`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass
from onnx_ir.tensor_adapters import to_torch_dtype
from torch import Tensor, nn

from edgeft.core.errors import EdgeftError
from edgeft.graph.torch_ops.operator import Operator, title, unsupported
from edgeft.graph.torch_ops.table import operator_of

OLDEST_OPSET = 13
"""Since which Squeeze, Softmax and the rest mean what they mean today; per-axis QuantizeLinear starts here too."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One node: what to call, what it reads and writes by name, and what nobody reads after it."""

    node: ir.Node
    function: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_uses: tuple[str, ...]


class GraphModule(nn.Module):
    """Executes `model`, differentiably.

    Args:
        model: opset 13 or later; left as it is. Model-local functions are inlined.
        trainable: float initializers that become parameters; all others are buffers.

    Raises:
        UnsupportedNodeError: an operator has no function here; names the node and the operators that have one.
        EdgeftError: the opset is older than 13, a name in `trainable` is no float initializer, or an initializer has a
            type that torch has not.
    """

    def __init__(self, model: ir.Model, *, trainable: Collection[str]) -> None:
        super().__init__()
        opset = model.opset_imports.get("", 0)
        if opset < OLDEST_OPSET:
            raise EdgeftError(
                f"the graph is of opset {opset}, the torch executor needs {OLDEST_OPSET} or later",
                hint="convert the model: onnx.version_converter.convert_version(model, 18)",
            )
        graph = _prepared(model)
        self._keys = _register_(self, graph, trainable)
        self.inputs = tuple(str(value.name) for value in graph.inputs if str(value.name) not in self._keys)
        self.outputs = tuple(str(value.name) for value in graph.outputs)
        self._steps = _steps(graph)
        self._types = {
            str(value.name): to_torch_dtype(value.dtype)
            for node in graph
            for value in node.outputs
            if value.dtype in _HELD_TYPES
        }

    def forward(self, feeds: Mapping[str, Tensor], also: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return the graph's outputs by name, and the inner tensors named in `also`.

        Integers that Q made are returned in their integer type; a gradient passes through floats only.

        Args:
            feeds: every input by name, in the type that the graph asks for.
            also: tensors of the graph, such as those a distillation loss compares.

        Raises:
            EdgeftError: an input is missing or unknown, the graph has no tensor of a name in `also`, or a node cannot
                take the tensors that reach it (names the node).
        """
        self._check_names(feeds)
        wanted = {*self.outputs, *also}
        values = {**dict(feeds), **{name: self.tensor(name) for name in self._keys}}
        for step in self._steps:
            values.update(_call(step, values))
            for name in step.last_uses:
                if name not in wanted:
                    del values[name]
        unknown = [name for name in wanted if name not in values]
        if unknown:
            near = ", ".join(get_close_matches(unknown[0], self.names())) or "none"
            raise EdgeftError(f"the graph has no tensor {unknown[0]!r}", hint=f"nearest: {near}")
        return {name: self._typed(name, values[name]) for name in dict.fromkeys((*self.outputs, *also))}

    def tensor(self, name: str) -> Tensor:
        """Return the parameter or buffer that is the initializer `name`.

        Raises:
            EdgeftError: the graph has no such initializer.
        """
        if name not in self._keys:
            near = ", ".join(get_close_matches(name, self._keys)) or "none"
            raise EdgeftError(f"the graph has no initializer {name!r}", hint=f"nearest: {near}")
        found: Tensor = getattr(self, self._keys[name])
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors: inputs, initializers, node outputs."""
        return (*self.inputs, *self._keys, *(name for step in self._steps for name in step.outputs if name))

    def _check_names(self, feeds: Mapping[str, Tensor]) -> None:
        if set(feeds) != set(self.inputs):
            raise EdgeftError(f"the graph takes {list(self.inputs)}, but was given {list(feeds)}")

    def _typed(self, name: str, value: Tensor) -> Tensor:
        """Return `value` in its integer type, where it is held in float."""
        return value.to(self._types[name]) if name in self._types and value.is_floating_point() else value


_HELD_TYPES = frozenset({ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16})
"""What QuantizeLinear makes and `torch_ops.quantize` holds in float32."""


def _prepared(model: ir.Model) -> ir.Graph:
    """Return a copy of the graph without functions and Constant nodes, its types inferred."""
    copy = model.clone()
    InlinePass()(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    ShapeInferencePass()(copy)
    return copy.graph


def _register_(module: nn.Module, graph: ir.Graph, trainable: Collection[str]) -> dict[str, str]:
    """Make every initializer a parameter or buffer of `module`; return initializer name -> attribute of `module`.

    An attribute holds neither dots nor the name of another attribute: the position makes it unique.
    """
    missing = [name for name in trainable if name not in graph.initializers]
    if missing:
        near = ", ".join(get_close_matches(missing[0], graph.initializers)) or "none"
        raise EdgeftError(f"cannot train {missing[0]!r}: the graph has no such initializer", hint=f"nearest: {near}")
    chosen = frozenset(trainable)
    keys = {}
    for position, (name, value) in enumerate(graph.initializers.items()):
        keys[name] = key = f"{position}:{name.replace('.', '/')}"
        tensor = _tensor(name, value)
        if name not in chosen:
            module.register_buffer(key, tensor)
        elif tensor.is_floating_point():
            module.register_parameter(key, nn.Parameter(tensor))
        else:
            raise EdgeftError(f"cannot train {name!r}: it is {tensor.dtype}, not a float")
    return keys


def _tensor(name: str, value: ir.Value) -> Tensor:
    if value.const_value is None:
        raise EdgeftError(f"initializer {name!r} has no value")
    try:
        to_torch_dtype(value.const_value.dtype)
        return torch.tensor(value.const_value.numpy())
    except TypeError as error:
        raise EdgeftError(f"initializer {name!r} is {value.const_value.dtype.name}, which torch has not") from error


def _steps(graph: ir.Graph) -> tuple[_Step, ...]:
    """Return the nodes in order, each with the tensors that nobody reads after it."""
    kept = {str(value.name) for value in graph.outputs}
    seen: set[str] = set()
    steps: list[_Step] = []
    for node in reversed(list(graph)):
        inputs = tuple("" if value is None else str(value.name) for value in node.inputs)
        outputs = tuple(str(value.name or "") for value in node.outputs)
        touched = dict.fromkeys(name for name in (*inputs, *outputs) if name)
        last = tuple(name for name in touched if name not in seen and name not in kept)
        seen.update(touched)
        steps.append(_Step(node, operator_of(node), inputs, outputs, last))
    return tuple(reversed(steps))


def _call(step: _Step, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of one node by name."""
    try:
        result = step.function(step.node, *(values[name] if name else None for name in step.inputs))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise EdgeftError(f"{title(step.node)} cannot take {_described(step, values)}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    missing = [name for name in step.outputs[len(results) :] if name]
    if missing:
        raise unsupported(step.node, f"output {missing[0]!r}")
    return {name: value for name, value in zip(step.outputs, results, strict=False) if name}


def _described(step: _Step, values: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{values[name].dtype} {list(values[name].shape)}" for name in step.inputs if name)
