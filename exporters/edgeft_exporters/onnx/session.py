"""How a lowered model runs: explicit threads, sequential, no spinning, CPU provider, nothing read outside the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.core.exporter import Session
from edgeft.runtime.onnx_file import refuse_external_data
from edgeft.runtime.session import session_options


def session(file: Path, threads: int) -> Session:
    """Return a callable from input arrays by name to output arrays in the graph's order.

    Args:
        file: an ONNX model in one file.
        threads: intra-op threads, at least 1.

    Raises:
        DeviceError: `threads` is below 1, or the file cannot be read.
        IntegrityError: the model keeps weights in other files.
        EdgeftError: onnxruntime refuses the model.
    """
    if threads < 1:
        raise DeviceError(f"{threads} threads: at least one is needed", hint="--threads 1")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DeviceError(f"{file}: cannot be read: {error.strerror}") from error
    refuse_external_data(data, str(file))
    opened = open_bytes(data, str(file), session_options(threads, spinning=False))

    def run(inputs: Mapping[str, Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = opened.run(None, dict(inputs))
        return outputs

    return run


def open_bytes(data: bytes, name: str, options: Any) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return an `onnxruntime.InferenceSession` of the model in `data`.

    Raises:
        EdgeftError: onnxruntime refuses the model.
    """
    try:
        return ort.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EdgeftError(
            f"{name}: onnxruntime {ort.__version__} cannot load it: {error}",
            hint="check the model with `edgeft inspect`, or choose another export.opset",
        ) from error
