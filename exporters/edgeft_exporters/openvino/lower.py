"""Lowering to OpenVINO: the ONNX graph as the artifact of record, and the IR that its runtime reads fastest."""

import shutil
import tempfile
from pathlib import Path

import openvino

from edgeft.core.atomic import write_atomic
from edgeft.graph.load import load
from edgeft_exporters.openvino.session import read, session

MODEL, IR = "model.onnx", "model.xml"


def lower(graph: Path, folder: Path) -> tuple[Path, ...]:
    """Write model.onnx (a copy), model.xml and model.bin to `folder`, after running the IR once.

    Raises:
        DataError: `graph` is no ONNX model, or keeps weights in other files.
        EdgeftError: OpenVINO refuses the model; nothing is left in `folder`.
        OSError: the disk is full or the folder cannot be written.
    """
    load(graph)
    with tempfile.TemporaryDirectory(prefix="edgeft-openvino-") as temporary:
        made = Path(temporary) / IR
        model = read(graph)
        _name_by_place_(model)
        openvino.save_model(model, made, compress_to_fp16=False)
        session(made, threads=1)
        write_atomic(folder / MODEL, graph.read_bytes())
        files = [folder / MODEL]
        for source in (made, made.with_suffix(".bin")):
            shutil.copyfile(source, folder / source.name)
            files.append(folder / source.name)
    return tuple(files)


def _name_by_place_(model: openvino.Model) -> None:
    """Name after their place the operators that the ONNX file does not name: OpenVINO counts them over the process."""
    for place, op in enumerate(model.get_ordered_ops()):
        if op.get_friendly_name() == op.get_name():
            op.set_friendly_name(f"{op.get_type_name()}_{place}")
