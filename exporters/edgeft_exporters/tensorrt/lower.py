"""Lowering to TensorRT: an ONNX file that its parser takes, and the script that builds the engine on the device.

An engine is an executable bound to GPU, driver and version: it is made where it runs. The ONNX file is what ships. What
an int8 graph leaves in float is float16 in that file (half.py); a graph in float32 or float16 keeps its types.
"""

from pathlib import Path

import onnx
import onnx_ir as ir

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import EdgeftError
from edgeft.graph.load import load
from edgeft.graph.opset import at_least
from edgeft.graph.save import save
from edgeft_exporters.contract import holds_quantized
from edgeft_exporters.tensorrt.conformance import breaches
from edgeft_exporters.tensorrt.half import OPSET, half_
from edgeft_exporters.tensorrt.options import LARGEST_BATCH, LENGTH
from edgeft_exporters.tensorrt.pixels import lower_pixels_
from edgeft_exporters.tensorrt.weight_scales import hold_weight_scales_

MODEL, SCRIPT = "model.onnx", "build_engine.sh"
_SCRIPT = """#!/bin/sh
# Builds model.engine for this GPU with TensorRT 10 or later. Unverified on hardware: check the answers before use.
# BATCH is the largest size of an open batch axis, LENGTH that of other open axes, such as tokens.
# OUT is the folder that the engine is written to. Options of trtexec may follow, such as
#   --memPoolSize=workspace:512              memory for a layer's work, in MiB
#   --useDLACore=0 --allowGPUFallback        the deep-learning accelerator, the GPU for what it cannot do
set -eu
BATCH="${{BATCH:-{batch}}}"
LENGTH="${{LENGTH:-{length}}}"
cd "$(dirname "$0")"
# A bundle takes no new file: there the engine goes beside it.
if [ -e manifest.json ]; then OUT="${{OUT:-..}}"; else OUT="${{OUT:-.}}"; fi
set -- --saveEngine="$OUT/model.engine" --timingCacheFile="$OUT/timing.cache" {shapes} "$@"
exec trtexec --onnx=model.onnx --stronglyTyped "$@"
"""


def lower(graph: Path, folder: Path) -> tuple[Path, ...]:
    """Write model.onnx and build_engine.sh to `folder`.

    Raises:
        DataError: `graph` is no ONNX model, or keeps weights in other files.
        EdgeftError: the Q/DQ pairs break a rule; nothing is left in `folder`.
        OSError: the disk is full or the folder cannot be written.
    """
    proto = load(graph)
    quantized = holds_quantized(proto)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(at_least(proto, OPSET) if quantized else proto))
    lower_pixels_(model)
    broken = breaches(model)
    if broken:
        raise EdgeftError(
            f"{graph}: {broken[0].op_type} {broken[0].node!r} breaks TensorRT's rules: {broken[0].reason}",
            hint=broken[0].mend,
        )
    if quantized:
        hold_weight_scales_(model)
        half_(model)
    folder.mkdir(parents=True, exist_ok=True)
    save(ir.to_proto(model), folder / MODEL)
    write_atomic(folder / SCRIPT, _SCRIPT.format(shapes=_shapes(model), batch=LARGEST_BATCH, length=LENGTH).encode())
    (folder / SCRIPT).chmod(0o755)
    return folder / MODEL, folder / SCRIPT


def _shapes(model: ir.Model) -> str:
    """Return trtexec's optimisation profile, "" where every size is fixed: up to $BATCH rows, lengths up to $LENGTH."""
    shapes = {str(value.name): list(value.shape) for value in model.graph.inputs if value.shape}
    if all(isinstance(size, int) for shape in shapes.values() for size in shape):
        return ""
    profile = []
    for option, batch, length in (("min", "1", "1"), ("opt", "1", "${LENGTH}"), ("max", "${BATCH}", "${LENGTH}")):
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
