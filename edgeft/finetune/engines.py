"""What runs the frozen layers: torch, or onnxruntime on the exported layers.

onnxruntime folds BatchNorm, fuses activations and is some 2.5 times as fast here (EfficientNet-Lite0, 224 px, 2 cores:
96 against 36 images/s), but the export costs as much as torch needs for a few hundred such images. The choice is made
by the amount of arithmetic, never by a clock: a result must not depend on how busy the machine was.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from edgeft.models.pixels import Normalizer
from edgeft.runtime.preprocess import InputContract

Engine: TypeAlias = Callable[[Tensor], Tensor]
"""uint8 [N, 3, H, W] -> the frozen layers' output, float32 [N, ...]."""

ONNXRUNTIME_PAYS_FROM = 200 * 10**9
"""Multiply-adds above which the export (about 8 s) is won back: Lite0's 0.39e9 an image, n (1/36 - 1/96) s > 8 s."""


def choose(engine: str, multiply_adds: int, device: torch.device) -> str:
    """Return "torch" or "onnxruntime"; `auto` takes onnxruntime on CPU from `ONNXRUNTIME_PAYS_FROM` multiply-adds."""
    if engine != "auto":
        return engine
    return "onnxruntime" if device.type == "cpu" and multiply_adds >= ONNXRUNTIME_PAYS_FROM else "torch"


def multiply_adds(layers: nn.Module, contract: InputContract, device: torch.device) -> int:
    """Return the multiply-adds of the convolutions and linear layers of `layers` for one image."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.get_parameter("weight")[0].numel()

    counted = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in counted]
    try:
        with torch.inference_mode():
            layers.eval()(torch.zeros(1, 3, contract.height, contract.width, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def torch_engine(layers: nn.Module, contract: InputContract, device: torch.device) -> Engine:
    """Return `layers` in eval mode behind the contract's normalisation."""
    normalize = Normalizer(contract, device)
    layers.eval()

    def run(pixels: Tensor) -> Tensor:
        with torch.no_grad():  # not inference_mode: the layers above may be trained on the output
            output: Tensor = layers(normalize(pixels))
            return output

    return run


def onnxruntime_engine(layers: nn.Module, contract: InputContract, threads: int, folder: Path) -> Engine:
    """Return the same function as `torch_engine`, to float32 rounding, run by onnxruntime.

    Args:
        layers: the frozen layers, on CPU.
        contract: the model's input.
        threads: intra-op threads.
        folder: where the exported graph is kept; an earlier export is used again.
    """
    import onnxruntime

    path = folder / "frozen_layers.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        _export(layers, contract, temporary)
        temporary.replace(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    mean = np.asarray(contract.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.asarray(contract.std, np.float32).reshape(1, 3, 1, 1)

    def run(pixels: Tensor) -> Tensor:
        images = (np.ascontiguousarray(pixels.numpy()).astype(np.float32) - mean) / std
        return torch.from_numpy(session.run(None, {"images": images})[0])

    return run


def _export(layers: nn.Module, contract: InputContract, path: Path) -> None:
    example = torch.zeros(2, 3, contract.height, contract.width)
    with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecations
        torch.onnx.export(
            layers.eval(),
            (example,),
            path,
            input_names=["images"],
            output_names=["activations"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            verbose=False,
        )
