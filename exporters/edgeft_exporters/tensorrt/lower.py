"""Lowering to TensorRT: an ONNX file that its parser takes, and the script that builds the engine on the device.

An engine is an executable bound to GPU, driver and version: it is made where it runs. The ONNX file is what ships.
"""

from pathlib import Path

import onnx
import onnx_ir as ir

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import EdgeftError
from edgeft.graph.load import load
from edgeft.graph.passes.plain_pixels import plain_pixels_
from edgeft.graph.save import save
from edgeft_exporters.tensorrt.conformance import breaches

MODEL, SCRIPT = "model.onnx", "build_engine.sh"
_SCRIPT = """#!/bin/sh
# Builds model.engine for this GPU with TensorRT 10 or later. Unverified on hardware: check the answers before use.
set -eu
cd "$(dirname "$0")"
exec trtexec --onnx=model.onnx --stronglyTyped --saveEngine=model.engine --timingCacheFile=timing.cache {shapes} "$@"
"""
_LARGEST_BATCH = 8


def lower(graph: Path, folder: Path) -> tuple[Path, ...]:
    """Write model.onnx and build_engine.sh to `folder`.

    Raises:
        DataError: `graph` is no ONNX model, or keeps weights in other files.
        EdgeftError: the Q/DQ pairs break a rule; nothing is left in `folder`.
        OSError: the disk is full or the folder cannot be written.
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(load(graph)))
    plain_pixels_(model)
    broken = breaches(model)
    if broken:
        raise EdgeftError(
            f"{graph}: {broken[0].op_type} {broken[0].node!r} breaks TensorRT's rules: {broken[0].reason}",
            hint=f"{broken[0].mend} (quantize with --target tensorrt)",
        )
    folder.mkdir(parents=True, exist_ok=True)
    save(ir.to_proto(model), folder / MODEL)
    write_atomic(folder / SCRIPT, _SCRIPT.format(shapes=_shapes(model)).encode())
    (folder / SCRIPT).chmod(0o755)
    return folder / MODEL, folder / SCRIPT


def _shapes(model: ir.Model) -> str:
    """Return trtexec's optimisation profile for inputs with an open batch axis: one, one, eight; "" where none is."""
    named = {str(value.name): list(value.shape or []) for value in model.graph.inputs}
    if not any(shape and not isinstance(shape[0], int) for shape in named.values()):
        return ""
    sizes = {name: [size if isinstance(size, int) else 1 for size in shape] for name, shape in named.items()}
    profile = []
    for option, batch in (("min", 1), ("opt", 1), ("max", _LARGEST_BATCH)):
        text = ",".join(f"{name}:{'x'.join(map(str, [batch, *shape[1:]]))}" for name, shape in sizes.items())
        profile.append(f"--{option}Shapes={text}")
    return " ".join(profile)
