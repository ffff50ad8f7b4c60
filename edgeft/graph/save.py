"""How edgeft writes ONNX: one file, no external data, the same bytes for the same graph, whole or not at all."""

from pathlib import Path

import onnx

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import EdgeftError
from edgeft.graph.tensors import all_tensors

MAX_BYTES = (1 << 31) - 1
"""Protobuf's limit for one message."""


def save(model: onnx.ModelProto, path: Path) -> int:
    """Write `model` to `path` and return its size in bytes.

    Raises:
        EdgeftError: the model refers to external data or is larger than 2 GB.
        OSError: the disk is full or the folder cannot be written.
    """
    outside = [tensor.name for tensor in all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise EdgeftError(f"{path.name}: tensor {outside[0]!r} and {len(outside) - 1} more lie outside the model file")
    size = int(model.ByteSize())
    if size > MAX_BYTES:
        raise EdgeftError(f"{path.name} would have {size / 1e9:.1f} GB; one ONNX file holds 2 GB at most")
    write_atomic(path, model.SerializeToString(deterministic=True))
    return size
