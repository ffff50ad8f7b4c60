"""The process state that training needs and gives back: threads, deterministic kernels, the generator, the heap.

Big activations come and go every step. By default glibc hands blocks above 32 MiB back to the kernel at once, which
clears each page again on the next step: a third of a training step of EfficientNet-Lite0 was system time. Raising
M_MMAP_THRESHOLD and M_TRIM_THRESHOLD keeps that memory in the process (3.0 s -> 2.15 s a step, 2 cores, batch 32).
"""

import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, get_int_from_env

from edgeft.core.errors import UsageError

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_ABOVE = 1 << 30
_NEVER_TRIM = (1 << 31) - 1
_PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may translate all texts first. A dead one ends the others at once."""


@contextmanager
def training_process(seed: int, threads: int, *, deterministic: bool = True) -> Iterator[None]:
    """Run the body with `threads` CPU threads and deterministic kernels; every torch setting is restored afterwards.

    Kernels that have no deterministic form on a GPU still run (torch warns); on CPU none is used here.
    """
    keep_heap()
    cudnn = torch.backends.cudnn
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined] # missing in the stubs
        cudnn.benchmark,
    )
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(seed)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
            # deterministic mode would fill every fresh tensor with NaN, some 200 MB a step
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # as above
            cudnn.benchmark = not deterministic
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1], warn_only=before[2])
            torch.utils.deterministic.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined] # as above
            cudnn.benchmark = before[4]
            release_heap()


def accelerator(device: str, precision: str) -> Accelerator:
    """Return a fresh Accelerator; an earlier one's settings would otherwise stick to the process.

    Raises:
        UsageError: the recipe asks for a GPU and there is none, or for more than there are.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("finetune.device is cuda and torch sees no GPU", hint="set finetune.device to auto or cpu")
    cards, processes = torch.cuda.device_count(), get_int_from_env(["LOCAL_WORLD_SIZE"], 1)
    if device != "cpu" and 0 < cards < processes:
        raise UsageError(
            f"finetune.processes is {processes} and torch sees {cards} GPU{'s' if cards > 1 else ''}",
            hint="one process a GPU, or finetune.device: cpu",
        )
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - the only way; accelerate's tests do so
    on_cpu = device == "cpu" or (processes > 1 and not cards)
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


def keep_heap() -> bool:
    """Keep freed memory in the process (glibc only, for the life of the process); return whether it was possible."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_ABOVE)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


def release_heap() -> None:
    """Give what `keep_heap` kept back to the kernel, for the stages that follow in this process (glibc only)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
