"""Opening a bundle to serve it: proven first, and where batches are asked for, those too.

A bundle is verified, and timed, one image at a time. A batch may be run in its place only where it gives the same
answers, so the golden vectors are run in batches and one by one. Static int8 passes, bit for bit. What quantizes its
activations as it runs does not: it takes one range for the whole batch, so an image would be decided by its neighbours.
Text models in int8 do that, and texts need padding beside it: they are refused at once.
"""

from pathlib import Path

import numpy as np

from edgeft.bundle.check import check
from edgeft.bundle.golden import Golden, from_bytes
from edgeft.core.errors import IntegrityError, UsageError
from edgeft.runtime.manifest import GOLDEN, read_files
from edgeft.runtime.predictor import Predictor, open_predictor

BATCH_ATOL = 1e-5
"""Largest difference of a score: float sums in another order differ by about 1e-6."""
_ALONE = "serve it without --max-batch: one at a time, as it was verified"


def load(bundle: Path, *, threads: int, max_batch: int, public_key: Path | None = None) -> Predictor:
    """Open the bundle folder `bundle` once its golden vectors have been replayed here.

    Args:
        bundle: the folder.
        threads: intra-op threads.
        max_batch: images that may be run at once.
        public_key: whose signature it must carry; None asks for none.

    Raises:
        IntegrityError: a file or an output is not what the build signed off, or the signature does not hold.
        DeviceError: the bundle cannot be read, or texts or a signature need a package that is missing.
        UsageError: its answers in batches are not those one at a time, or `public_key` is no key.
    """
    manifest, contents = read_files(bundle, public_key)
    if check(bundle, threads=threads, public_key=public_key).content_digest != manifest.content_digest:
        raise IntegrityError(f"{bundle}: exchanged while it was opened", hint="start again")
    predictor = open_predictor(manifest, contents, bundle, threads)
    if max_batch > 1:
        _prove_batches(predictor, from_bytes(contents[GOLDEN], str(bundle / GOLDEN)), max_batch)
    return predictor


def _prove_batches(predictor: Predictor, golden: Golden, size: int) -> None:
    name = predictor.manifest.name
    if predictor.takes_texts:
        raise UsageError(f"{name} decides texts: padding and its neighbours would change a text's scores", hint=_ALONE)
    alone = predictor.scores(golden.inputs)
    rows = np.resize(np.arange(len(alone)), max(size, len(alone)))
    for start in range(0, len(rows), size):
        taken = rows[start : start + size]
        found = predictor.scores_together({key: values[taken] for key, values in golden.inputs.items()})
        worst = float(np.abs(found - alone[taken]).max())
        if not worst <= BATCH_ATOL:
            raise UsageError(
                f"{name}: a score in a batch of {len(taken)} differs by {worst:.2g} from the one alone, "
                f"allowed {BATCH_ATOL:.0e}",
                hint=_ALONE,
            )
