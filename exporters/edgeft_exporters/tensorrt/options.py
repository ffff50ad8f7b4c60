"""What a builder may use, and which shapes an engine takes; `trtexec` has an option for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

LARGEST_BATCH: Final = 8
LENGTH: Final = 128


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is built.

    Args:
        workspace_bytes: device memory that a layer may use as it runs; None leaves it to TensorRT (`--memPoolSize`).
        timing_cache: file of measured kernels, read and written; it makes a second build fast (`--timingCacheFile`).
        largest_batch: an open batch axis takes 1 to this many, tuned for 1 (`--maxShapes`).
        length: the largest and usual size of other open axes, such as tokens (`--optShapes`).
        dla_core: the deep-learning accelerator to use, the GPU for what it cannot do (`--useDLACore`,
            `--allowGPUFallback`); None for the GPU alone.
    """

    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    largest_batch: int = LARGEST_BATCH
    length: int = LENGTH
    dla_core: int | None = None
