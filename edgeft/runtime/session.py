"""One way to open a model in onnxruntime: explicit threads, explicit spinning, nothing outside the file."""

from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeft.core.errors import DeviceError, IntegrityError
from edgeft.runtime.onnx_file import refuse_external_data

Scores: TypeAlias = npt.NDArray[np.float32]

INPUT, OUTPUT = "pixels", "scores"
"""Names of the deployment graph's input (uint8 [N, H, W, 3]) and output (float32 [N, K])."""
_QUIET = 3


class Model:
    """A deployment graph that runs.

    Args:
        data: the ONNX file.
        name: how it is called in messages.
        threads: intra-op threads.
        spinning: whether idle threads burn the processor while they wait; off unless a benchmark asks for it.

    Raises:
        IntegrityError: the file keeps data elsewhere, is no ONNX file, or is no deployment graph.
        DeviceError: `threads` is below 1.
    """

    def __init__(self, data: bytes, name: str, *, threads: int = 1, spinning: bool = False) -> None:
        if threads < 1:
            raise DeviceError(f"{threads} threads: at least one is needed", hint="--threads 1")
        refuse_external_data(data, name)
        try:
            self._session = ort.InferenceSession(
                data, sess_options=session_options(threads, spinning=spinning), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise IntegrityError(f"{name}: onnxruntime {ort.__version__} cannot load it ({error})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [item.name for item in inputs] != [INPUT] or inputs[0].type != "tensor(uint8)":
            found = ", ".join(f"{item.name}: {item.type}" for item in inputs)
            raise IntegrityError(f"{name}: inputs ({found}), expected ({INPUT}: tensor(uint8))")
        if [item.name for item in outputs] != [OUTPUT]:
            raise IntegrityError(f"{name}: outputs {[item.name for item in outputs]}, expected ['{OUTPUT}']")
        self.input_size: tuple[int, int] = _fixed_size(inputs[0].shape, name)

    @classmethod
    def open(cls, path: Path, *, threads: int = 1, spinning: bool = False) -> "Model":
        """Open the ONNX file at `path`.

        Raises:
            IntegrityError: see the class.
            DeviceError: the file cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DeviceError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(data, str(path), threads=threads, spinning=spinning)

    def scores(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Return the scores float32 [N, K] of `pixels` uint8 [N, H, W, 3]."""
        return cast("Scores", self._session.run([OUTPUT], {INPUT: pixels})[0])


def session_options(threads: int, *, spinning: bool) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return options with `threads` intra-op threads, sequential execution and stated spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def _fixed_size(shape: list[Any], name: str) -> tuple[int, int]:
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[1:]) or shape[3] != 3:  # noqa: PLR2004 - NHWC, RGB
        raise IntegrityError(f"{name}: input of shape {shape}, expected [N, height, width, 3] with fixed sides")
    return int(shape[1]), int(shape[2])
