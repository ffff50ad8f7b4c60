"""`edgeft verify BUNDLE`: is this the bundle that was built, and does it decide here as it did there?

Digests of every file come before any of them is parsed. Then the golden vectors are replayed through this device's
runtime, and its decoder on the raw files.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from edgeft.bundle.golden import Golden, from_bytes
from edgeft.core.errors import IntegrityError
from edgeft.core.stage import Json
from edgeft.runtime.manifest import GOLDEN, MODEL, read_files
from edgeft.runtime.predictor import Predictor
from edgeft.runtime.preprocess import Pixels, decode, preprocess
from edgeft.runtime.session import Model, Scores

_MAX_PIXEL_ERROR = 3
"""Decoders of different libjpeg versions differ by a level or two; more is another image or another resize."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found; one that finds damage raises instead.

    Args:
        bundle: the folder.
        name: the bundle's name.
        target: the runtime it was lowered for.
        precision: "int8" or "fp32".
        content_digest: of the deterministic part.
        files: how many files had their digest proven, the manifest included.
        golden_images: replayed from pixels.
        raw_images: replayed from raw files.
        max_abs_score_error: largest difference of a score from the build's.
        atol: what was allowed.
        raw_pixels_equal: whether this device decodes and resizes to the very same bytes.
        notes: what a reader should know.
    """

    bundle: str
    name: str
    target: str
    precision: str
    content_digest: str
    files: int
    golden_images: int
    raw_images: int
    max_abs_score_error: float
    atol: float
    raw_pixels_equal: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return cast("dict[str, Json]", {**asdict(self), "notes": list(self.notes)})


def check(bundle: Path, threads: int = 1) -> CheckResult:
    """Check the bundle folder `bundle` on this device.

    Args:
        bundle: the folder.
        threads: intra-op threads of the replay.

    Raises:
        IntegrityError: a file differs from its digest, is missing or not listed, or an output differs from the build's.
        DeviceError: the bundle cannot be read.
    """
    manifest, contents = read_files(bundle)
    golden = from_bytes(contents[GOLDEN], str(bundle / GOLDEN))
    predictor = Predictor(manifest, Model(contents[MODEL], str(bundle / MODEL), threads=threads))
    error = _compare(golden, golden.pixels, golden.scores, predictor, f"{bundle}: golden vectors")
    decoded = [preprocess(decode(data, f"raw_{i}"), manifest.input) for i, data in enumerate(golden.raw)]
    notes = []
    if decoded:
        pixels = np.stack(decoded)
        equal, note = _same_pixels(golden, pixels, bundle)
        notes += [note] if note else []
        count = len(decoded)
        raw_error = _compare(golden, pixels, golden.scores[:count], predictor, f"{bundle}: raw golden files")
        error = max(error, raw_error)
    else:
        equal = True
        notes.append("the bundle holds no raw files, so decoding was not replayed")
    return CheckResult(
        bundle=str(bundle),
        name=manifest.name,
        target=manifest.target,
        precision=manifest.precision,
        content_digest=manifest.content_digest,
        files=len(contents) + 1,
        golden_images=len(golden.pixels),
        raw_images=len(golden.raw),
        max_abs_score_error=error,
        atol=golden.atol,
        raw_pixels_equal=equal,
        notes=tuple(notes),
    )


def _compare(
    golden: Golden,
    pixels: Pixels,
    expected: Scores,
    predictor: Predictor,
    what: str,
) -> float:
    """Return the largest score difference.

    Raises:
        IntegrityError: it exceeds the tolerance, or a clear decision changed.
    """
    found = predictor.scores(pixels)
    if found.shape != expected.shape:
        raise IntegrityError(f"{what}: scores of shape {found.shape}, expected {expected.shape}")
    error = np.abs(found.astype(np.float64) - expected).max(axis=1)
    worst = int(np.argmax(error))
    if not np.isfinite(found).all() or error[worst] > golden.atol:
        raise IntegrityError(
            f"{what}: image {worst} scores {np.round(found[worst], 4).tolist()}, the build saw "
            f"{np.round(expected[worst], 4).tolist()}: off by {error[worst]:.2g}, allowed {golden.atol:.2g}",
            hint="this device's runtime computes something else: compare its onnxruntime version with report.json's",
        )
    return float(error[worst])


def _same_pixels(golden: Golden, pixels: Pixels, bundle: Path) -> tuple[bool, str]:
    expected = golden.pixels[: len(pixels)]
    if pixels.shape != expected.shape:
        raise IntegrityError(f"{bundle}: raw golden files become {pixels.shape}, the build saw {expected.shape}")
    worst = int(np.abs(pixels.astype(np.int16) - expected).max())
    if worst > _MAX_PIXEL_ERROR:
        raise IntegrityError(
            f"{bundle}: raw golden files decode to pixels that differ by {worst} levels from the build's",
            hint="this device's Pillow decodes or resizes differently: install the version that report.json names",
        )
    return worst == 0, f"this device decodes raw files with differences of up to {worst} of 255 levels" if worst else ""
