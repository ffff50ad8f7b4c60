"""Signs a bundle in the form of OpenSSF model signing, with a key file, offline.

    openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem     the maker keeps it
    openssl ec -in KEY.pem -pubout -out KEY.pub                      goes to every device

`model_signing verify key BUNDLE --signature BUNDLE/model.sig --public_key KEY.pub --ignore-paths BUNDLE/model.sig`
checks it without edgeft.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeft.core.errors import DeviceError, UsageError
from edgeft.runtime.signature import INSTALL, SIGNATURE, every_file


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key.

    Args:
        path: PEM file of an elliptic-curve key (P-256, P-384 or P-521).
        password: that opens it; None where it is not locked.
    """

    path: Path
    password: str | None = None


def require_key(key: SigningKey) -> None:
    """Refuse a key that cannot sign, before hours of work are done for it.

    Raises:
        UsageError: it cannot be read, is locked by another password, or is no elliptic-curve key.
        DeviceError: the package model-signing is not installed.
    """
    _signer(key)


def sign(name: str, files: Mapping[str, bytes], key: SigningKey) -> bytes:
    """Return the signature file of a bundle.

    Args:
        name: the bundle's; stands in the signature.
        files: every file of the bundle by name, the manifest included.
        key: the maker's.

    Raises:
        UsageError, DeviceError: see `require_key`.
    """
    signer = _signer(key)
    with tempfile.TemporaryDirectory(prefix="edgeft-sign-") as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        made = Path(temporary) / SIGNATURE
        signer.sign(folder, made)
        return made.read_bytes()


def _signer(key: SigningKey) -> Any:  # noqa: ANN401 - model_signing.signing.Config, of an extra
    try:
        from model_signing import signing
    except ImportError as error:
        raise DeviceError(f"signing needs the package model-signing: {error}", hint=INSTALL) from error
    untyped: Any = signing.Config  # its constructor states no types, and bytes, not text, open a key
    password = None if key.password is None else key.password.encode()
    try:
        signer = untyped().use_elliptic_key_signer(private_key=key.path, password=password)
        return signer.set_hashing_config(every_file())
    except OSError as error:
        raise UsageError(f"--sign {key.path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # cryptography's errors share no base
        raise UsageError(
            f"--sign {key.path}: not a private key of an elliptic curve in PEM, or another password opens it: {error}",
            hint="openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem",
        ) from error
