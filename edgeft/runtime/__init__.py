"""The device side: load a bundle, preprocess, predict, time; numpy, onnxruntime and pillow only."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeft.runtime.predictor import Predictor


def load(bundle: Path, threads: int = 1, public_key: Path | None = None) -> "Predictor":
    """Open a bundle for prediction.

    Every file's digest is checked first; `edgeft.bundle.check.check` also replays the golden vectors.

    Args:
        bundle: a bundle folder.
        threads: intra-op threads.
        public_key: PEM file of the key whose signature it must carry; None asks for none.

    Raises:
        IntegrityError: a file is not what the manifest says, is missing or not listed, or the signature does not hold.
        UsageError: `public_key` is no key.
        DeviceError: the bundle cannot be read, or a signature is asked for and model-signing is missing.
    """
    from edgeft.runtime.predictor import load as load_predictor

    return load_predictor(bundle, threads, public_key)
