"""A torch classifier as a float ONNX graph of the default opset, batch size left open."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from edgeft.core.errors import EdgeftError

_EXAMPLE_LENGTH = 6
_EXAMPLE_BATCH = 2  # 1 would be specialised: torch.export treats sizes 0 and 1 as constants


def trace(module: nn.Module, height: int, width: int, opset: int) -> ir.Model:
    """Return the graph of `module`: input `x` float32 [N, 3, H, W], output `logits` float32 [N, K].

    Example and weights are made contiguous on purpose: from channels_last ones, torch.export writes the average pool's
    stride bookkeeping into the graph as Range, Gather and six Adds.

    Args:
        module: in eval mode, on the CPU.
        height: H in pixels.
        width: W in pixels.
        opset: version of the default ONNX domain.

    Raises:
        EdgeftError: the module is in training mode, or torch cannot export it.
    """
    return _exported(
        _contiguous(module),
        torch.zeros(_EXAMPLE_BATCH, 3, height, width),
        ["x"],
        {0: torch.export.Dim("N")},
        opset,
    )


def trace_texts(module: nn.Module, inputs: Sequence[str], opset: int) -> ir.Model:
    """Return the graph of `module`: `inputs` int64 [N, L], output `logits` float32 [N, K]; N and L are open.

    Args:
        module: in eval mode, on the CPU; takes tokens by input.
        inputs: names, in the graph's order.
        opset: version of the default ONNX domain.

    Raises:
        EdgeftError: the module is in training mode, or torch cannot export it.
    """
    sizes = {0: torch.export.Dim("N"), 1: torch.export.Dim("L", min=2)}
    example = {name: torch.ones(_EXAMPLE_BATCH, _EXAMPLE_LENGTH, dtype=torch.int64) for name in inputs}
    return _exported(module, example, list(inputs), dict.fromkeys(inputs, sizes), opset)


def _exported(
    module: nn.Module, example: object, names: list[str], sizes: Mapping[Any, object], opset: int
) -> ir.Model:
    if module.training:
        raise EdgeftError("the module is in training mode: its graph would hold dropout and batch statistics")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's warnings are about its own internals
            program = torch.onnx.export(
                module,
                (example, {}),  # the empty last one keeps a dictionary of tokens from being taken for keyword arguments
                dynamo=True,
                opset_version=opset,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(sizes,),
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch raises many types, none of them documented
        raise EdgeftError(
            f"torch.onnx.export cannot export {type(module).__name__} at opset {opset}: {error}",
            hint="choose another architecture, or set export.opset",
        ) from error
    if program is None:  # the stub allows it; export to memory never returns it
        raise EdgeftError(f"torch.onnx.export returned nothing for {type(module).__name__}")
    return program.model


def _contiguous(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)
