"""What a teacher answers to rows of a dataset: a folder with rows.npy, int64 [n], and logits.npy, float32 [n, K]."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError

_ROWS, _LOGITS = "rows.npy", "logits.npy"


@dataclass(frozen=True, slots=True)
class Answers:
    """A teacher's logits for some rows.

    Args:
        rows: of the dataset, int64 [n], ascending.
        logits: float32 [n, K], of the images as they are, not augmented.
    """

    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> "Answers":
        """Return what `write` wrote.

        Raises:
            DataError: the folder is incomplete.
        """
        try:
            rows, logits = (np.load(folder / name, allow_pickle=False) for name in (_ROWS, _LOGITS))
        except FileNotFoundError as error:
            raise DataError(f"{error.filename}: missing, expected a folder of a teacher's answers") from error
        return cls(rows, logits)

    def write(self, folder: Path) -> None:
        """Write the files to `folder`, which exists."""
        np.save(folder / _ROWS, self.rows)
        np.save(folder / _LOGITS, self.logits)
