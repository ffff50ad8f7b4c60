"""Whether engines can be built and run here: NVIDIA's two Python packages, and a GPU.

`cuda.bindings` allocates the device's memory. It is NVIDIA's own, has wheels for Jetson's processors and weighs little;
torch would do as well, and a device does not have it.
"""

from typing import Any

from edgeft.core.errors import first_line


def lacking() -> str | None:
    """Return what is missing to build and run engines here, None where nothing is."""
    try:
        import tensorrt  # noqa: F401 - asked for, not used
    except (ImportError, OSError) as error:  # OSError: the bindings are there, TensorRT's libraries are not
        return f"the package tensorrt cannot be imported: {first_line(error)}"
    try:
        runtime = cudart()
    except (ImportError, OSError) as error:
        return f"the package cuda-bindings cannot be imported: {first_line(error)}"
    try:
        status, count = runtime.cudaGetDeviceCount()
    except RuntimeError as error:  # libcudart is missing
        return f"CUDA's runtime cannot be loaded: {first_line(error)}"
    if status != runtime.cudaError_t.cudaSuccess:
        return f"CUDA finds no GPU: {status.name}"
    return None if count else "CUDA finds no GPU"


def cudart() -> Any:  # noqa: ANN401 - a module
    """Return CUDA's runtime API.

    Raises:
        ImportError: cuda-bindings is not installed.
    """
    from cuda.bindings import runtime

    return runtime
