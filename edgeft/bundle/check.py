"""`edgeft verify BUNDLE`: is this the bundle that was built, and does it decide here as it did there?

Digests of every file come before any of them is parsed. Then the golden vectors are replayed through this device's
runtime, and its decoder or tokenizer on the raw files or texts.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from edgeft.bundle.golden import Golden, from_bytes
from edgeft.core.errors import IntegrityError
from edgeft.core.stage import Json
from edgeft.runtime.encode import Feeds, one_row
from edgeft.runtime.manifest import GOLDEN, read_files
from edgeft.runtime.predictor import open_predictor
from edgeft.runtime.preprocess import INPUT
from edgeft.runtime.session import Scores
from edgeft.runtime.signature import SIGNATURE

_HOW_TO_CHECK = "--require-signature KEY.pub checks by whom"
_MAX_PIXEL_ERROR = 3
"""Decoders of different libjpeg versions differ by a level or two; more is another image or another resize."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found; one that finds damage raises instead.

    Args:
        bundle: the folder.
        name: the bundle's name.
        target: the runtime it was lowered for.
        precision: "int8", "int4", "fp16" or "fp32".
        content_digest: of the deterministic part.
        files: how many files had their digest proven, the manifest included.
        golden_rows: replayed from pixels or tokens.
        raw_rows: replayed from raw files or texts.
        max_abs_score_error: largest difference of a score from the build's.
        atol: what was allowed.
        raw_inputs_equal: whether this device makes the very same pixels or tokens of them.
        signature: whether it is signed; "verified" only where a key to check it with was given.
        notes: what a reader should know.
    """

    bundle: str
    name: str
    target: str
    precision: str
    content_digest: str
    files: int
    golden_rows: int
    raw_rows: int
    max_abs_score_error: float
    atol: float
    raw_inputs_equal: bool
    signature: Literal["none", "not checked", "verified"]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return cast("dict[str, Json]", {**asdict(self), "notes": list(self.notes)})


def check(bundle: Path, threads: int = 1, public_key: Path | None = None) -> CheckResult:
    """Check the bundle folder `bundle` on this device.

    Args:
        bundle: the folder.
        threads: intra-op threads of the replay.
        public_key: whose signature it must carry; None asks for none.

    Raises:
        IntegrityError: a file differs from its digest, is missing or not listed, an output differs from the build's, or
            the signature does not hold.
        UsageError: `public_key` is no key.
        DeviceError: the bundle cannot be read, or a signature is asked for and model-signing is missing.
    """
    manifest, contents = read_files(bundle, public_key)
    golden = from_bytes(contents[GOLDEN], str(bundle / GOLDEN))
    predictor = open_predictor(manifest, contents, bundle, threads)
    if set(golden.inputs) != set(predictor.inputs):
        raise IntegrityError(f"{bundle}: golden vectors of {sorted(golden.inputs)}, the model takes other inputs")
    error = _compare(golden, golden.scores, predictor.scores(golden.inputs), f"{bundle}: golden vectors")
    notes, equal = [], True
    if golden.raw:
        encoded = [predictor.encode(source, f"raw_{i}") for i, source in enumerate(golden.sources())]
        for index, feeds in enumerate(encoded):
            same, note = _same_inputs(one_row(golden.inputs, index), feeds, f"{bundle}: raw_{index}")
            equal = equal and same
            notes += [note] if note and note not in notes else []
        found = np.concatenate([predictor.scores(feeds) for feeds in encoded])
        raw_error = _compare(golden, golden.scores[: len(encoded)], found, f"{bundle}: raw golden inputs")
        error = max(error, raw_error)
    else:
        notes.append("the bundle holds nothing raw, so decoding was not replayed")
    signed = (bundle / SIGNATURE).is_file()
    if signed and public_key is None:
        notes.append(f"it is signed; {_HOW_TO_CHECK}")
    return CheckResult(
        bundle=str(bundle),
        name=manifest.name,
        target=manifest.target,
        precision=manifest.precision,
        content_digest=manifest.content_digest,
        files=len(contents) + 1,
        signature="none" if not signed else "not checked" if public_key is None else "verified",
        golden_rows=len(golden.scores),
        raw_rows=len(golden.raw),
        max_abs_score_error=error,
        atol=golden.atol,
        raw_inputs_equal=equal,
        notes=tuple(notes),
    )


def _compare(golden: Golden, expected: Scores, found: Scores, what: str) -> float:
    """Return the largest score difference.

    Raises:
        IntegrityError: it exceeds the tolerance.
    """
    if found.shape != expected.shape:
        raise IntegrityError(f"{what}: scores of shape {found.shape}, expected {expected.shape}")
    error = np.abs(found.astype(np.float64) - expected).max(axis=1)
    worst = int(np.argmax(error))
    if not np.isfinite(found).all() or error[worst] > golden.atol:
        raise IntegrityError(
            f"{what}: row {worst} scores {np.round(found[worst], 4).tolist()}, the build saw "
            f"{np.round(expected[worst], 4).tolist()}: off by {error[worst]:.2g}, allowed {golden.atol:.2g}",
            hint="this device's runtime computes something else: compare its onnxruntime version with report.json's",
        )
    return float(error[worst])


def _same_inputs(expected: Feeds, found: Feeds, what: str) -> tuple[bool, str]:
    """Return whether a raw file or text gave the build's input, and a note where it nearly did.

    Raises:
        IntegrityError: it gave another one.
    """
    shapes = [{name: values.shape for name, values in side.items()} for side in (expected, found)]
    if shapes[0] != shapes[1]:
        raise IntegrityError(f"{what} becomes {shapes[1]}, the build saw {shapes[0]}")
    if INPUT not in expected:
        if all(np.array_equal(expected[name], found[name]) for name in expected):
            return True, ""
        raise IntegrityError(
            f"{what} becomes other tokens than the build saw",
            hint="this device's tokenizers package splits texts otherwise: install the version that report.json names",
        )
    worst = int(np.abs(found[INPUT].astype(np.int16) - expected[INPUT]).max())
    if worst > _MAX_PIXEL_ERROR:
        raise IntegrityError(
            f"{what} decodes to pixels that differ by {worst} levels from the build's",
            hint="this device's Pillow decodes or resizes differently: install the version that report.json names",
        )
    return worst == 0, f"this device decodes raw files with differences of up to {worst} of 255 levels" if worst else ""
