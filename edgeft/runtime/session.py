"""One way to open a model in onnxruntime: explicit threads, explicit spinning, nothing outside the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeft.core.errors import DeviceError, IntegrityError
from edgeft.runtime.onnx_file import refuse_external_data
from edgeft.runtime.preprocess import INPUT
from edgeft.runtime.text import TOKEN_INPUTS

Scores: TypeAlias = npt.NDArray[np.float32]

OUTPUT = "scores"
"""Name of a deployment graph's output, float32 [N, K]."""
_QUIET = 3
_TENSOR_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("uint8", "int8", "uint16", "int16", "int32", "int64", "bool")},
}
"""onnxruntime's names of element types."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input of a model.

    Args:
        name: the tensor's name.
        dtype: of its elements.
        shape: batch first; an int where the size is fixed, else a name or None.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


class AnyModel:
    """Any model whose inputs are tensors, run.

    Args:
        data: the ONNX file.
        name: how it is called in messages.
        threads: intra-op threads.
        spinning: whether idle threads burn the processor while they wait; off unless a benchmark asks for it.
        as_written: whether quantized operators run in the float steps that the file writes, for a device that is not
            here, and not in this CPU's integer kernels.

    Raises:
        IntegrityError: the file keeps data elsewhere, is no ONNX file, or has an input that is no tensor.
        DeviceError: `threads` is below 1.
    """

    _LEFT_OUT: ClassVar[tuple[str, ...]] = ()
    """onnxruntime's graph transformers that do not run."""

    def __init__(
        self, data: bytes, name: str, *, threads: int = 1, spinning: bool = False, as_written: bool = False
    ) -> None:
        if threads < 1:
            raise DeviceError(f"{threads} threads: at least one is needed", hint="--threads 1")
        refuse_external_data(data, name)
        try:
            self._session = ort.InferenceSession(
                data,
                sess_options=session_options(threads, spinning=spinning, as_written=as_written),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(self._LEFT_OUT),
            )
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise IntegrityError(f"{name}: onnxruntime {ort.__version__} cannot load it ({error})") from error
        inputs = self._session.get_inputs()
        for item in inputs:
            if item.type not in _TENSOR_TYPES:
                raise IntegrityError(f"{name}: input {item.name}: {item.type}, expected a tensor of numbers")
        self.inputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(item.name, np.dtype(_TENSOR_TYPES[item.type]), tuple(item.shape)) for item in inputs
        )
        self.outputs: tuple[str, ...] = tuple(item.name for item in self._session.get_outputs())

    @classmethod
    def open(cls, path: Path, *, threads: int = 1, spinning: bool = False, as_written: bool = False) -> Self:
        """Open the ONNX file at `path`.

        Raises:
            IntegrityError: see the class.
            DeviceError: the file cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DeviceError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(data, str(path), threads=threads, spinning=spinning, as_written=as_written)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """Return the outputs for arrays [N, ...] by input name."""
        return cast("list[Any]", self._session.run(None, feeds))


class Model(AnyModel):
    """A deployment graph that runs; for the arguments see `AnyModel`.

    Raises:
        IntegrityError: the file keeps data elsewhere, is no ONNX file, or is no deployment graph.
        DeviceError: `threads` is below 1.
    """

    # It makes int32 of float biases, with scales in the biases' own type: float16 does not hold them, and a graph that
    # was lowered for TensorRT would answer something else. Biases that are to be integers are so in our graphs.
    _LEFT_OUT = ("WeightBiasQuantization",)

    def __init__(
        self, data: bytes, name: str, *, threads: int = 1, spinning: bool = False, as_written: bool = False
    ) -> None:
        super().__init__(data, name, threads=threads, spinning=spinning, as_written=as_written)
        named = [(item.name, str(item.dtype)) for item in self.inputs]
        tokens = [(token, "int64") for token in TOKEN_INPUTS]
        if named not in ([(INPUT, "uint8")], tokens, tokens[:2]):
            found = ", ".join(map(str, self.inputs))
            raise IntegrityError(
                f"{name}: inputs ({found}), expected ({INPUT}: uint8) or ({', '.join(TOKEN_INPUTS[:2])}: int64)"
            )
        if self.outputs != (OUTPUT,):
            raise IntegrityError(f"{name}: outputs {list(self.outputs)}, expected ['{OUTPUT}']")
        self.input_size: tuple[int, int] | None = None
        """(height, width) of an image graph's input."""
        if named[0][0] == INPUT:
            self.input_size = _fixed_size(list(self.inputs[0].shape), name)

    def scores(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """Return the scores float32 [N, K] of arrays [N, ...] by input."""
        return cast("Scores", self.run(feeds)[0])


def session_options(threads: int, *, spinning: bool, as_written: bool = False) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return options with `threads` intra-op threads, sequential execution and stated spinning; see `AnyModel`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def _fixed_size(shape: list[Any], name: str) -> tuple[int, int]:
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[1:]) or shape[3] != 3:  # noqa: PLR2004 - NHWC, RGB
        raise IntegrityError(f"{name}: input of shape {shape}, expected [N, height, width, 3] with fixed sides")
    return int(shape[1]), int(shape[2])
