"""Lowering to onnxruntime is a copy: the ONNX graph is what ships. What is added is the proof that it loads."""

from pathlib import Path

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import EdgeftError
from edgeft.graph.load import load
from edgeft_exporters.onnx.session import session

MODEL = "model.onnx"


def lower(graph: Path, folder: Path) -> tuple[Path, ...]:
    """Copy `graph` to `folder`/model.onnx, byte for byte, and open it once.

    Raises:
        DataError: `graph` is no ONNX model, or keeps weights in other files.
        EdgeftError: onnxruntime refuses the model; nothing is left in `folder`.
        OSError: the disk is full or the folder cannot be written.
    """
    load(graph)
    file = folder / MODEL
    write_atomic(file, graph.read_bytes())
    try:
        session(file, threads=1)
    except EdgeftError:
        file.unlink()
        raise
    return (file,)
