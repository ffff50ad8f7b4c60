"""Refuses ONNX files whose weights lie outside them, before any runtime parses the file.

A model can name a file anywhere on the disk as the home of a tensor (CVE-2022-25882, CVE-2024-27318, CVE-2024-5187,
CVE-2026-27489, CVE-2026-34446). A bundle's model is always whole, so any such tensor is refused. The device has no
`onnx` package; this walks the protobuf wire format along the fields of onnx.proto that can hold a tensor.
"""

from collections.abc import Iterator
from typing import Final

from edgeft.core.errors import IntegrityError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BITS = 70
_MAX_DEPTH = 64
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""Message -> field number -> message, from onnx.proto; fields not listed cannot reach a tensor."""


def refuse_external_data(data: bytes, name: str) -> None:
    """Refuse a model that keeps weights in other files.

    Args:
        data: the ONNX file.
        name: how the file is called in messages.

    Raises:
        IntegrityError: a tensor is external, or the bytes are no protobuf message.
    """
    try:
        _walk(memoryview(data), "Model", name, 0)
    except (IndexError, ValueError) as error:
        raise IntegrityError(f"{name}: not a readable ONNX file ({error})") from error


def _walk(message: memoryview, kind: str, name: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    children = _CHILDREN[kind]
    for field, value in _fields(message):
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
            raise IntegrityError(
                f"{name}: a tensor keeps its data in another file, which a bundle never does",
                hint="save the model with its weights inside",
            )
        if field in children:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {field} of {kind} is no message")
            _walk(value, children[field], name, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire == _LENGTH:
            size, position = _varint(message, position)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield field, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position
        shift += 7
        if shift > _MAX_VARINT_BITS:
            raise ValueError("a number is too long")
