"""Who made a bundle: the OpenSSF model signature in it, checked with the maker's public key, offline.

The signature covers every file, the manifest included, so it is checked before any of them is parsed. It is itself held
to the one form in which it is written: a byte changed in its wrapping shows, too.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DeviceError, IntegrityError, UsageError

SIGNATURE: Final = "model.sig"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
INSTALL: Final = "pip install 'edgeft[sign]'"
_UNTRUSTED = "do not use this bundle: get it again from who signed it, or check which key they use"


def signed_digests(folder: Path, public_key: Path) -> dict[str, str]:
    """Prove the signature of the bundle `folder`, and return name -> sha256 of every file that it covers.

    The files are compared once more with these digests as they are read, so none can be exchanged in between.

    Args:
        folder: the bundle.
        public_key: PEM file of the signer's elliptic-curve key (P-256, P-384 or P-521).

    Raises:
        IntegrityError: there is no signature, it is another key's, or it does not cover what lies there.
        UsageError: `public_key` is no such key.
        DeviceError: the package model-signing is not installed.
    """
    file = folder / SIGNATURE
    if not file.is_file():
        raise IntegrityError(f"{folder}: not signed, and a signature is required", hint="edgeft build --sign KEY.pem")
    try:
        from model_signing import verifying
    except ImportError as error:
        raise DeviceError(f"checking a signature needs the package model-signing: {error}", hint=INSTALL) from error
    untyped: Any = verifying.Config  # its constructor states no types
    try:
        verifier = untyped().use_elliptic_key_verifier(public_key=public_key)
    except OSError as error:
        raise UsageError(f"{public_key}: cannot be read ({error.strerror})") from error
    except Exception as error:  # cryptography's errors share no base
        raise UsageError(
            f"{public_key}: not the public key of an elliptic curve in PEM: {error}",
            hint="openssl ec -in KEY.pem -pubout -out KEY.pub",
        ) from error
    try:
        data = file.read_bytes()
        signed = _stated(data)
        with _in_memory(data) as copy:  # so that what was stated is what is proven, whatever lies in the folder by then
            verifier.set_hashing_config(every_file()).verify(folder, copy)
    except Exception as error:  # the library raises what its parsers raise
        reason = str(error) or type(error).__name__
        raise IntegrityError(f"{file}: does not hold with {public_key}: {reason}", hint=_UNTRUSTED) from error
    return signed


def every_file() -> Any:  # noqa: ANN401 - model_signing.hashing.Config, of an extra
    """Return what is hashed: every file of a bundle but its signature."""
    from model_signing import hashing

    untyped: Any = hashing.Config
    return untyped().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


@contextmanager
def _in_memory(data: bytes) -> Iterator[Path]:
    """Give `data` a path of its own that needs no disk: a device's may be read-only."""
    descriptor = os.memfd_create(SIGNATURE)
    try:
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def require_signed(name: str, data: bytes, signed: Mapping[str, str], folder: Path) -> None:
    """Refuse bytes that are not the ones that were signed.

    Raises:
        IntegrityError: they are others, or `name` was not signed.
    """
    if signed.get(name) != sha256_bytes(data):
        raise IntegrityError(f"{folder / name}: not what was signed", hint=_UNTRUSTED)


def _stated(data: bytes) -> dict[str, str]:
    """Return name -> sha256 that a signature states.

    Raises:
        ValueError: it is not in the form in which signatures are written.
    """
    values = json.loads(data)
    envelope = values["dsseEnvelope"]
    expected = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": values["verificationMaterial"]["publicKey"]["hint"]},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": envelope["payload"],
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": envelope["signatures"][0]["sig"], "keyid": ""}],
        },
    }
    payload, signature = (_decoded(text) for text in (envelope["payload"], envelope["signatures"][0]["sig"]))
    if data != json.dumps(expected, separators=(",", ":")).encode() or not signature:
        raise ValueError("it was changed after it was written")
    stated: dict[str, Any] = json.loads(payload)
    return {str(item["name"]): str(item["digest"]) for item in stated["predicate"]["resources"]}


def _decoded(text: str) -> bytes:
    """Decode base64 that has one spelling.

    Raises:
        ValueError: it has another.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise ValueError("it was changed after it was written")
    return data
