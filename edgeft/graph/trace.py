"""A torch classifier as a float ONNX graph of the default opset, batch size left open."""

import copy
import warnings

import onnx_ir as ir
import torch
from torch import nn

from edgeft.core.errors import EdgeftError

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
    if module.training:
        raise EdgeftError("the module is in training mode: its graph would hold dropout and batch statistics")
    example = torch.zeros(_EXAMPLE_BATCH, 3, height, width)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's warnings are about its own internals
            program = torch.onnx.export(
                _contiguous(module),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["x"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
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
