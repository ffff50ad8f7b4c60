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
# LENGTH is the largest size of open axes after the batch, such as tokens; other options of trtexec may follow.
set -eu
LENGTH="${{LENGTH:-128}}"
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
            hint=broken[0].mend,
        )
    folder.mkdir(parents=True, exist_ok=True)
    save(ir.to_proto(model), folder / MODEL)
    write_atomic(folder / SCRIPT, _SCRIPT.format(shapes=_shapes(model)).encode())
    (folder / SCRIPT).chmod(0o755)
    return folder / MODEL, folder / SCRIPT


def _shapes(model: ir.Model) -> str:
    """Return trtexec's optimisation profile, "" where every size is fixed: batches of 1 to 8, lengths up to $LENGTH."""
    shapes = {str(value.name): list(value.shape) for value in model.graph.inputs if value.shape}
    if all(isinstance(size, int) for shape in shapes.values() for size in shape):
        return ""
    profile = []
    for option, batch, length in (("min", "1", "1"), ("opt", "1", "$LENGTH"), ("max", str(_LARGEST_BATCH), "$LENGTH")):
        entries = []
        for name, shape in shapes.items():
            opened = [batch, *[length] * (len(shape) - 1)]
            sizes = [str(size) if isinstance(size, int) else opened[axis] for axis, size in enumerate(shape)]
            entries.append(f"{_quoted(name)}:{'x'.join(sizes)}")
        profile.append(f'"--{option}Shapes={",".join(entries)}"')
    return " ".join(profile)


def _quoted(name: str) -> str:
    """Return an input's name as trtexec reads it: in quotes where it holds a colon, shell characters escaped."""
    escaped = "".join(f"\\{letter}" if letter in '"$`\\' else letter for letter in name)
    return f"'{escaped}'" if ":" in name else escaped
