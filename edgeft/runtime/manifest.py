"""A bundle's manifest, and the proof that the bundle is the one it describes, before anything else in it is parsed.

The manifest is written in one exact form (`manifest_bytes`), so a single changed byte of it shows; it names the sha256
of every other file; and no file may lie beside those. `content_digest` covers the deterministic part: what two builds
from the same inputs agree on. Timings and reports stay outside it. Digests show damage, not malice: only a signature
(`signature.py`) does that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeft.core.digest import sha256_bytes, sha256_json
from edgeft.core.errors import DataError, DeviceError, IntegrityError
from edgeft.runtime.encode import Contract, contract_from_json
from edgeft.runtime.signature import SIGNATURE, require_signed, signed_digests
from edgeft.runtime.text import TextContract
from edgeft.verify.decision import Decision

SCHEMA = 1
NAME = "manifest.json"
MODEL, GOLDEN, LICENSES, TOKENIZER = "model.onnx", "golden.npz", "LICENSES.md", "tokenizer.json"
REPORT_HTML, REPORT_JSON, CARD, SBOM = "report.html", "report.json", "MODEL_CARD.md", "sbom.cdx.json"

OUTSIDE_DIGEST: Final = frozenset({"content_digest", "evidence", "run", "self_digest"})
"""Keys that `content_digest` does not cover."""
_KEYS: Final = OUTSIDE_DIGEST | {
    "schema",
    "name",
    "task",
    "classes",
    "ok_class",
    "input",
    "decision",
    "target",
    "model",
    "precision",
    "gates",
    "measurements",
    "files",
}
_MAX_BYTES = 1 << 24
_DAMAGED = "the bundle is damaged: copy it again from where it was built, or build it again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says about itself.

    Args:
        name: of the bundle.
        classes: in the order of the scores.
        ok_class: the class of good parts; None where the task has none.
        input: how an image or a text becomes the model's input.
        decision: how scores become a decision.
        target: the runtime it was lowered for.
        precision: "int8", "int4", "fp16" or "fp32".
        files: name -> sha256 of every file the device relies on.
        evidence: name -> sha256 of reports and cards.
        content_digest: of the deterministic part.
        values: the whole manifest.
    """

    name: str
    classes: tuple[str, ...]
    ok_class: str | None
    input: Contract
    decision: Decision
    target: str
    precision: str
    files: Mapping[str, str]
    evidence: Mapping[str, str]
    content_digest: str
    values: Mapping[str, Any]


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return manifest `values` with `content_digest` and `self_digest` filled in."""
    sealed = {key: value for key, value in values.items() if key not in {"content_digest", "self_digest"}}
    sealed["content_digest"] = content_digest(sealed)
    sealed["self_digest"] = sha256_json(sealed)
    return sealed


def content_digest(values: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's deterministic part."""
    return sha256_json({key: value for key, value in values.items() if key not in OUTSIDE_DIGEST})


def manifest_bytes(values: Mapping[str, Any]) -> bytes:
    """Return the one form in which a manifest is written."""
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_files(folder: Path, public_key: Path | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """Read a bundle whole and prove its digests; nothing but the manifest is parsed.

    The returned bytes are the ones that were digested, so a file exchanged afterwards cannot slip in.

    Args:
        folder: the bundle.
        public_key: whose signature it must carry; None asks for none. It is checked before anything is parsed.

    Raises:
        IntegrityError: a file differs from its digest, is missing, is not listed, or is a link; or the signature does
            not hold.
        UsageError: `public_key` is no key.
        DeviceError: the folder or a file cannot be read, or a signature is asked for and model-signing is missing.
    """
    present = _present(folder)
    signed = None if public_key is None else signed_digests(present[NAME].parent, public_key)
    stated = _read(present[NAME])
    if signed is not None:
        require_signed(NAME, stated, signed, folder)
    manifest = _parse(stated, folder / NAME)
    listed = {**manifest.files, **manifest.evidence}
    missing, extra = sorted(set(listed) - set(present)), sorted(set(present) - set(listed) - {NAME, SIGNATURE})
    if missing:
        raise IntegrityError(f"{folder}: {', '.join(missing)} missing", hint=_DAMAGED)
    if extra:
        raise IntegrityError(
            f"{folder}: {', '.join(extra)} not listed in {NAME}", hint="remove what does not belong to the bundle"
        )
    contents = {name: _read(present[name]) for name in sorted(listed)}
    for name, data in contents.items():
        found = sha256_bytes(data)
        if found != listed[name]:
            raise IntegrityError(
                f"{folder / name}: sha256 {found[:16]}..., expected {listed[name][:16]}...", hint=_DAMAGED
            )
        if signed is not None:
            require_signed(name, data, signed, folder)
    return manifest, contents


def _present(folder: Path) -> dict[str, Path]:
    """Return the plain files of a bundle by name, a manifest among them.

    Raises:
        IntegrityError, DeviceError: see `read_files`.
    """
    try:
        place = folder.resolve(strict=True)  # a link may be switched to another bundle while this one is read
        present = {path.name: path for path in place.iterdir()}
    except OSError as error:
        raise DeviceError(
            f"{folder}: not a bundle folder ({error.strerror})", hint="give the folder that `edgeft build` wrote"
        ) from error
    if NAME not in present:
        raise IntegrityError(
            f"{folder}: no {NAME}, so this is no bundle", hint="give the folder that `edgeft build` wrote"
        )
    for name, path in present.items():
        if path.is_symlink() or not path.is_file():
            raise IntegrityError(f"{folder / name}: not a plain file, and a bundle holds nothing else", hint=_DAMAGED)
    return present


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(data: bytes, path: Path) -> Manifest:
    if len(data) > _MAX_BYTES:
        raise IntegrityError(f"{path}: {len(data)} bytes, a manifest has at most {_MAX_BYTES}", hint=_DAMAGED)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: not JSON ({error})", hint=_DAMAGED) from error
    if not isinstance(values, dict):
        raise IntegrityError(f"{path}: a JSON {type(values).__name__}, expected an object", hint=_DAMAGED)
    if values.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{path}: schema {values.get('schema')!r}, this edgeft reads {SCHEMA}", hint="install a matching edgeft"
        )
    if set(values) != _KEYS:
        raise IntegrityError(f"{path}: keys {sorted(set(values) ^ _KEYS)} are missing or unknown", hint=_DAMAGED)
    try:
        unchanged = data == manifest_bytes(values) and seal(values) == values
    except ValueError as error:  # NaN, or half a character
        raise IntegrityError(f"{path}: {error}", hint=_DAMAGED) from error
    if not unchanged:
        raise IntegrityError(f"{path}: it was changed after it was written", hint=_DAMAGED)
    return _manifest(values, path)


def _manifest(values: Mapping[str, Any], path: Path) -> Manifest:
    try:
        classes = tuple(str(item) for item in values["classes"])
        manifest = Manifest(
            name=str(values["name"]),
            classes=classes,
            ok_class=None if values["ok_class"] is None else str(values["ok_class"]),
            input=contract_from_json(values["input"]),
            decision=Decision.from_json(values["decision"], classes),
            target=str(values["target"]),
            precision=str(values["precision"]),
            files={str(name): str(digest) for name, digest in values["files"].items()},
            evidence={str(name): str(digest) for name, digest in values["evidence"].items()},
            content_digest=str(values["content_digest"]),
            values=values,
        )
    except (AttributeError, TypeError, DataError) as error:
        raise IntegrityError(f"{path}: {error}", hint=_DAMAGED) from error
    for name in (MODEL, GOLDEN, *([TOKENIZER] if isinstance(manifest.input, TextContract) else [])):
        if name not in manifest.files:
            raise IntegrityError(f"{path}: {name} is not listed", hint=_DAMAGED)
    if manifest.decision.ok is not None and values["decision"].get("model") != manifest.files[MODEL]:
        raise IntegrityError(
            f"{path}: its thresholds were fitted through another model than {MODEL}", hint="build the bundle again"
        )
    return manifest
