"""The input contract that each architecture was pretrained with, without importing the library that holds it.

`contracts.json` lists what timm and torchvision say, grouped by equal contracts (tests/golden/make_model_contracts.py
writes it, a parity test compares it). An architecture that is not listed is asked of its library.
"""

import difflib
import json
from functools import cache
from importlib import resources

from edgeft.core.errors import UsageError
from edgeft.runtime.preprocess import InputContract


def native_contract(library: str, architecture: str) -> InputContract:
    """Return the architecture's own input contract, mean and std in 0..255 pixel units.

    Raises:
        UsageError: the library does not know the architecture; the hint lists the nearest names.
    """
    listed = _table().get(library, {}).get(architecture)
    if listed is not None:
        return listed
    from edgeft.models.library_contracts import contract_of

    asked = contract_of(library, architecture)
    if asked is None:
        close = ", ".join(f"{library}/{name}" for name in nearest(library, architecture)) or "none"
        raise UsageError(f"model.base: {library} has no architecture {architecture!r}", hint=f"nearest: {close}")
    return asked


def nearest(library: str, architecture: str) -> list[str]:
    """Return up to three listed architectures of `library` with the most similar names."""
    return difflib.get_close_matches(architecture, _table().get(library, {}), n=3, cutoff=0.5)


@cache
def _table() -> dict[str, dict[str, InputContract]]:
    text = resources.files("edgeft.models").joinpath("contracts.json").read_text(encoding="utf-8")
    return {
        library: {name: InputContract.from_json(group["contract"]) for group in groups for name in group["names"]}
        for library, groups in json.loads(text).items()
    }
