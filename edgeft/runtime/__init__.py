"""The device side: load a bundle, preprocess, predict, time; numpy, onnxruntime and pillow only."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeft.runtime.predictor import Predictor


def load(bundle: Path, threads: int = 1) -> "Predictor":
    """Open a bundle for prediction.

    Every file's digest is checked first; `edgeft.bundle.check.check` also replays the golden vectors.

    Args:
        bundle: a bundle folder.
        threads: intra-op threads.

    Raises:
        IntegrityError: a file is not what the manifest says, is missing or is not listed.
        DeviceError: the bundle cannot be read.
    """
    from edgeft.runtime.predictor import load as load_predictor

    return load_predictor(bundle, threads)
