"""The one input of a graph over many rows, read when they are asked for: what calibration and training go through."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeft.data.rows import Rows
from edgeft.quantize.affine import QuantizationError


class OneInput:
    """Rows [N, ...] of a graph's one input, in the type that it takes.

    Args:
        rows: N rows, N > 0.

    Raises:
        QuantizationError: they hold several inputs.
    """

    def __init__(self, rows: Rows) -> None:
        first = rows[:1]
        if len(first) != 1:
            raise QuantizationError(
                f"the graph has {len(first)} inputs ({', '.join(first)}); this is for graphs with one"
            )
        ((self._name, row),) = first.items()
        self._rows = rows
        self.dtype: np.dtype[Any] = row.dtype
        self.shape: tuple[int, ...] = (len(rows), *row.shape[1:])
        self.ndim = row.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return these rows, [n, ...]: a slice, or the places of some."""
        if isinstance(rows, slice):
            return np.asarray(self._rows[rows][self._name])
        return np.concatenate([self._rows[row : row + 1][self._name] for row in rows])


Calibration: TypeAlias = NDArray[Any] | OneInput
"""Calibration inputs [N, ...] of a graph with one input: read in slices, so that few of them are in memory."""
