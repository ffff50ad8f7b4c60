"""How OpenVINO runs a model: explicit threads, one stream, float32 where the model is float.

A model with an open batch axis is compiled once for each batch that comes: fixed shapes are some 7 % faster. Float32
is asked for because the plugin would otherwise choose bfloat16 on CPUs that have it: answers would change with the CPU.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.core.exporter import Session
from edgeft.runtime.onnx_file import refuse_external_data


def options(threads: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - openvino's properties have any type
    """Return the plugin's properties for `threads` threads."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }


def read(file: Path) -> openvino.Model:
    """Return the model in `file`, .xml with its .bin beside it, or .onnx in one file.

    Raises:
        DeviceError: the file is missing.
        IntegrityError: an ONNX model keeps weights in other files.
        EdgeftError: OpenVINO cannot read it.
    """
    if not file.is_file():
        raise DeviceError(f"{file}: there is no such file")
    if file.suffix == ".onnx":
        refuse_external_data(file.read_bytes(), str(file))
    try:
        return openvino.Core().read_model(file)
    except RuntimeError as error:
        raise EdgeftError(
            f"{file}: OpenVINO {openvino.__version__} cannot read it: {_reason(error)}",
            hint="check the model with `edgeft inspect`",
        ) from error


def compiled(model: openvino.Model, properties: Mapping[str, Any], name: str) -> openvino.CompiledModel:
    """Return `model` compiled for the CPU.

    Raises:
        EdgeftError: OpenVINO cannot compile it; `name` says which model.
    """
    try:
        return openvino.Core().compile_model(model, "CPU", dict(properties))
    except RuntimeError as error:
        raise EdgeftError(f"{name}: OpenVINO {openvino.__version__} cannot compile it: {_reason(error)}") from error


def for_batch(model: openvino.Model, batch: int) -> openvino.Model:
    """Return a copy of `model` whose inputs have `batch` rows; other open sizes stay open."""
    fixed = model.clone()
    shapes = {}
    for port in fixed.inputs:
        shape = port.partial_shape
        if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
            shape[0] = batch
            shapes[port] = shape
    if shapes:
        fixed.reshape(shapes)
    return fixed


def session(file: Path, threads: int) -> Session:
    """Return a callable from input arrays by name to output arrays in the model's order.

    Args:
        file: .xml or .onnx.
        threads: at least 1.

    Raises:
        DeviceError: `threads` is below 1, or the file cannot be read.
        EdgeftError: OpenVINO refuses the model; the callable raises it for inputs that do not fit.
    """
    if threads < 1:
        raise DeviceError(f"{threads} threads: at least one is needed", hint="--threads 1")
    model = read(file)
    requests: dict[int, openvino.InferRequest] = {}
    dtypes = {port.any_name: port.element_type.to_dtype() for port in model.inputs}

    def run(inputs: Mapping[str, Any]) -> Sequence[Any]:
        _require_inputs(inputs, dtypes, file)
        batch = len(next(iter(inputs.values())))
        if batch not in requests:
            whole = compiled(for_batch(model, batch), options(threads), str(file))
            requests[batch] = whole.create_infer_request()
        try:
            found = requests[batch].infer(dict(inputs))
        except RuntimeError as error:
            raise EdgeftError(f"{file}: OpenVINO cannot run it on what was given: {_reason(error)}") from error
        return [np.array(found[index]) for index in range(len(model.outputs))]

    run({port.any_name: np.zeros([1, *_sizes(port)], port.element_type.to_dtype()) for port in model.inputs})
    return run


def _require_inputs(inputs: Mapping[str, Any], dtypes: Mapping[str, np.dtype[Any]], file: Path) -> None:
    """Refuse what OpenVINO would convert without a word.

    Raises:
        EdgeftError: an input's name or type is another one.
    """
    found = {name: np.asarray(array).dtype for name, array in inputs.items()}
    if found != dtypes:
        shown, expected = ({name: str(dtype) for name, dtype in each.items()} for each in (found, dtypes))
        raise EdgeftError(f"{file}: inputs {shown}, expected {expected}")


def _sizes(port: Any) -> list[int]:  # noqa: ANN401 - a port of either direction
    """Return the sizes after the batch axis; open ones count one."""
    return [1 if size.is_dynamic else size.get_length() for size in list(port.partial_shape)[1:]]


def _reason(error: RuntimeError) -> str:
    """Return the last line of OpenVINO's message: the lines before it are where in its sources it was raised."""
    return (str(error).strip().splitlines() or ["it said nothing"])[-1]
