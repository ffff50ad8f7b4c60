"""What a graph is fed with, read when it is asked for: the one form in which stages hand inputs to one another."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt


class Rows(Protocol):
    """N inputs of a graph; they may be read or computed as they are asked for."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, rows: slice, /) -> Mapping[str, npt.NDArray[Any]]:
        """Return these rows, arrays [n, ...] by input name."""
        ...
