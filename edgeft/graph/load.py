"""The one way a foreign ONNX file enters: parsed without following anything, then its external data read under guard.

A model can name files to read its weights from. Those names are resolved component by component from the model's
folder and refused when absolute, when they leave the folder, pass through a link, or end in a hard link or anything but
a plain file (CVE-2022-25882, CVE-2024-27318, CVE-2024-5187, CVE-2026-27489, CVE-2026-34446). The bytes are taken from
the very descriptor that was checked, so nothing can be swapped in between, and no session sees a path.
"""

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from edgeft.core.errors import DataError
from edgeft.graph.save import MAX_BYTES
from edgeft.graph.tensors import all_tensors


def load(path: Path, *, external_data: bool = False) -> onnx.ModelProto:
    """Return the model at `path`, all weights in memory.

    Args:
        path: an .onnx file.
        external_data: read weights from files beside the model (a user's model); False refuses them (a bundle's model).

    Raises:
        DataError: the file is missing, is no ONNX model, is larger than 2 GB, or names external data that is refused.
    """
    model = _parse(path)
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside and not external_data:
        raise DataError(
            f"{path}: tensor {outside[0].name!r} lies outside the model file; external data is not accepted here",
            hint='save the model as one file: onnx.save(onnx.load("model.onnx"), "single.onnx")',
        )
    if model.ByteSize() + sum(_tensor_bytes(tensor, _named(path, tensor)) for tensor in outside) > MAX_BYTES:
        raise DataError(f"{path}: the model and its external data exceed 2 GB, more than one ONNX file can hold")
    for tensor in outside:
        tensor.raw_data = _read_external(path, tensor)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return model


def _parse(path: Path) -> onnx.ModelProto:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: more than 2 GB; one ONNX file holds 2 GB at most")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint="give the path of an .onnx file") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, whose module has no types
        raise DataError(f"{path}: is no ONNX model: {error}", hint="give the path of an .onnx file") from error
    if not model.opset_import or not model.graph.node:
        raise DataError(f"{path}: is no ONNX model: it holds no operator", hint="give the path of an .onnx file")
    return model


def _named(path: Path, tensor: onnx.TensorProto) -> str:
    """Return what errors call the external data of `tensor`."""
    return f"{path}: external data of tensor {tensor.name!r}"


def _read_external(path: Path, tensor: onnx.TensorProto) -> bytes:
    """Return the bytes of `tensor` from the file it names."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = _named(path, tensor)
    wanted = _tensor_bytes(tensor, where)
    offset, length = _number(entries, "offset", 0, where), _number(entries, "length", wanted, where)
    if length != wanted:
        raise DataError(f"{where}: {length} bytes are named, its shape and type need {wanted}")
    descriptor = _open_inside(path.parent, entries.get("location", ""), where)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise DataError(f"{where}: {entries['location']!r} is a link or no plain file")
        if offset + length > facts.st_size:
            raise DataError(f"{where}: ends at byte {offset + length} of a file of {facts.st_size} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            file.seek(offset)
            data = file.read(length)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise DataError(f"{where}: the file ended while it was read")
    return data


def _open_inside(folder: Path, location: str, where: str) -> int:
    """Return a descriptor of the file `location` below `folder`, reached without following any link."""
    parts = PurePosixPath(location).parts
    foreign = PureWindowsPath(location).is_absolute() or "\\" in location or "\0" in location
    if not parts or foreign or PurePosixPath(location).is_absolute() or ".." in parts:
        raise DataError(f"{where}: {location!r} is not a path inside the model's folder")
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    except OSError as error:
        raise DataError(f"{where}: {location!r} is missing, a link, or cannot be read: {error.strerror}") from error
    finally:
        os.close(here)


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key, str(default))
    if not text.isascii() or not text.isdigit():
        raise DataError(f"{where}: {key} is {text!r}, expected a number of bytes")
    return int(text)


def _tensor_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Return how many bytes the tensor's shape and type need; 4- and 2-bit types are packed."""
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise DataError(f"{where}: its shape {list(tensor.dims)} is negative")
        count *= size
    bits = _PACKED_BITS.get(tensor.data_type)
    if bits is None:
        try:
            bits = 8 * int(tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        except (KeyError, ValueError) as error:
            raise DataError(f"{where}: its type {tensor.data_type} is unknown") from error
    if tensor.data_type == onnx.TensorProto.STRING:
        raise DataError(f"{where}: strings cannot lie outside the model file")
    return (count * bits + 7) // 8


_PACKED_BITS = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    **{getattr(onnx.TensorProto, name): 2 for name in ("UINT2", "INT2") if hasattr(onnx.TensorProto, name)},
}
