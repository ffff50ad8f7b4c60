"""How an engine runs: one stream, one block of device memory for each tensor, copied in and out for every call.

Memory grows with the largest input seen and is kept. Unverified on hardware.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorrt as trt

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.core.exporter import Session
from edgeft.core.stage import Json
from edgeft_exporters.tensorrt.engine import Messages
from edgeft_exporters.tensorrt.present import cudart

_AGAIN = "build it again on this device: an engine is bound to GPU, driver and version"


def open_engine(data: bytes, name: str, dla_core: int | None = None) -> Session:
    """Return a callable from input arrays by name to output arrays in the engine's order.

    Args:
        data: a serialized engine.
        name: how it is called in messages.
        dla_core: the accelerator that it was built for, if any.

    Raises:
        EdgeftError: the engine was not made for this device; the callable raises it for inputs that do not fit.
        DeviceError: CUDA fails, or has too little memory.
    """
    messages = Messages()
    runtime = trt.Runtime(messages)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EdgeftError(f"{name}: TensorRT {trt.__version__} cannot load it: {messages.errors()}", hint=_AGAIN)
    return _Runner(engine, name, messages)


def device_facts() -> dict[str, Json]:
    """Return what an engine is bound to."""
    runtime = cudart()
    status, properties = runtime.cudaGetDeviceProperties(0)
    if status != runtime.cudaError_t.cudaSuccess:
        raise DeviceError(f"cudaGetDeviceProperties: {status.name}")
    name = properties.name
    return {
        "runtime": "tensorrt",
        "version": str(trt.__version__),
        "gpu": name.decode() if isinstance(name, bytes) else str(name),
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


class _Memory:
    """Device memory by tensor, and the stream; freed with its owner."""

    def __init__(self) -> None:
        self.runtime = cudart()
        self.blocks: dict[str, tuple[int, int]] = {}
        self.stream = self.call("cudaStreamCreate")
        weakref.finalize(self, _free, self.runtime, self.blocks, self.stream)

    def call(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - CUDA's C types
        """Return what CUDA's `function` returns behind its status.

        Raises:
            DeviceError: the status is no success.
        """
        status, *values = getattr(self.runtime, function)(*arguments)
        if status != self.runtime.cudaError_t.cudaSuccess:
            raise DeviceError(f"{function}: {status.name}", hint="free the GPU's memory, or use a smaller batch")
        return values[0] if values else None

    def block(self, name: str, size_bytes: int) -> int:
        """Return the address of at least `size_bytes` for the tensor `name`."""
        address, size = self.blocks.get(name, (0, 0))
        if size < size_bytes or not address:
            if address:
                del self.blocks[name]
                self.call("cudaFree", address)
            address = self.call("cudaMalloc", max(size_bytes, 1))
            self.blocks[name] = (address, size_bytes)
        return address


class _Runner:
    """Runs one engine; not for several threads at once."""

    def __init__(self, engine: Any, name: str, messages: Messages) -> None:  # noqa: ANN401 - TensorRT's ICudaEngine
        self.engine, self.name, self.messages = engine, name, messages
        self.context = engine.create_execution_context()
        if self.context is None:
            raise DeviceError(f"{name}: no memory to run it: {messages.errors()}", hint="free the GPU's memory")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
        self.outputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.OUTPUT]
        self.dtypes = {each: np.dtype(trt.nptype(engine.get_tensor_dtype(each))) for each in names}
        self.memory = _Memory()

    def __call__(self, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """Return the outputs for `inputs`.

        Raises:
            EdgeftError: a name, type or shape does not fit.
            DeviceError: CUDA fails.
        """
        if set(inputs) != set(self.inputs):
            raise EdgeftError(f"{self.name}: inputs {sorted(inputs)}, expected {sorted(self.inputs)}")
        arrays = {name: self._taken(name, np.ascontiguousarray(inputs[name])) for name in self.inputs}
        made = {name: self._made(name) for name in self.outputs}
        memory, kinds = self.memory, self.memory.runtime.cudaMemcpyKind
        for name, array in arrays.items():
            block = memory.blocks[name][0]
            memory.call(
                "cudaMemcpyAsync", block, array.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice, memory.stream
            )
        if not self.context.execute_async_v3(int(memory.stream)):
            raise EdgeftError(f"{self.name}: TensorRT cannot run it: {self.messages.errors()}")
        for name, array in made.items():
            block = memory.blocks[name][0]
            memory.call(
                "cudaMemcpyAsync", array.ctypes.data, block, array.nbytes, kinds.cudaMemcpyDeviceToHost, memory.stream
            )
        memory.call("cudaStreamSynchronize", memory.stream)
        return list(made.values())

    def _taken(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return `array` after giving it a shape and a place in the engine."""
        if array.dtype != self.dtypes[name]:
            raise EdgeftError(f"{self.name}: {name!r} is {array.dtype}, expected {self.dtypes[name]}")
        if not self.context.set_input_shape(name, array.shape):
            raise EdgeftError(
                f"{self.name}: {name!r} of shape {list(array.shape)} is outside the engine's profile",
                hint="build it with a larger BATCH or LENGTH",
            )
        self.context.set_tensor_address(name, self.memory.block(name, array.nbytes))
        return array

    def _made(self, name: str) -> np.ndarray:
        """Return an array for the output `name` after giving it a place in the engine."""
        array = np.empty(tuple(self.context.get_tensor_shape(name)), self.dtypes[name])
        self.context.set_tensor_address(name, self.memory.block(name, array.nbytes))
        return array


def _free(runtime: Any, blocks: Mapping[str, tuple[int, int]], stream: Any) -> None:  # noqa: ANN401 - TensorRT and CUDA ship no types
    for address, _ in blocks.values():
        runtime.cudaFree(address)
    runtime.cudaStreamDestroy(stream)
