"""`edgeft merge`: from texts of the command line to the folders that are merged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core.errors import DataError
from edgeft.recipe.paths import locate

_MERGE = "edgeft.finetune.sites:merge_folders"


def merge(
    base: str, adapters: Sequence[Path], out: Path, *, shares: Sequence[float] = (), threads: int = 1
) -> dict[str, Any]:
    """Merge adapters into `base`, given as in a recipe's `model.weights`; see `edgeft.finetune.sites.merge_folders`.

    Raises:
        DataError: there is no such base.
    """
    weights = locate(base, Path(), key="--base")
    if not weights.exists():
        raise DataError(f"--base: {weights} does not exist", hint="name what model.weights of the recipe names")
    found: dict[str, Any] = catalog.resolve(_MERGE)(weights, adapters, out, shares, threads)
    return found
