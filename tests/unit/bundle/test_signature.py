"""Signed bundles: whoever changed a byte, or holds another key, is refused; and what a bundle was made of."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from typer.testing import CliRunner

from edgeft.bundle.check import check
from edgeft.bundle.licenses import License
from edgeft.bundle.pack import Parts, pack
from edgeft.bundle.sign import SigningKey, require_key
from edgeft.cli.main import app
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.runtime import load
from edgeft.runtime.manifest import read_files
from edgeft.runtime.signature import SIGNATURE

RUNNER = CliRunner()
ENTRY_FLIPS = 10_000


def make_key(folder: Path, name: str, password: str | None = None, key: Any = None) -> tuple[Path, Path]:  # noqa: ANN401 - any private key
    made = key or ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    public.write_bytes(
        made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_key(tmp_path, "maker")


@pytest.fixture
def signed(tmp_path: Path, tiny_parts: Parts, keys: tuple[Path, Path]) -> Path:
    pack(tmp_path / "signed", tiny_parts, SigningKey(keys[0]))
    return tmp_path / "signed"


def test_a_signed_bundle_is_known_by_its_makers_key(signed: Path, keys: tuple[Path, Path]) -> None:
    found = check(signed, public_key=keys[1])
    assert (found.signature, found.notes) == ("verified", ())
    assert load(signed, public_key=keys[1]).classes == ("red", "green", "blue")
    without = check(signed)
    assert without.signature == "not checked"
    assert "--require-signature" in without.notes[0]


def test_the_tool_of_openssf_agrees(signed: Path, keys: tuple[Path, Path]) -> None:
    command = ["verify", "key", signed, "--signature", signed / SIGNATURE, "--public_key", keys[1]]
    end = ["--ignore-paths", signed / SIGNATURE]
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", *command, *end], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Verification succeeded" in done.stdout + done.stderr) == (0, True), done.stderr


def test_another_key_or_no_signature_is_refused(
    tmp_path: Path, signed: Path, tiny_bundle: Path, keys: tuple[Path, Path]
) -> None:
    _, stranger = make_key(tmp_path, "stranger")
    for use in (check, load):
        with pytest.raises(IntegrityError, match=r"model\.sig: does not hold with .*stranger") as error:
            use(signed, public_key=stranger)
        assert error.value.exit_code == 8
        with pytest.raises(IntegrityError, match="not signed") as error:
            use(tiny_bundle, public_key=keys[1])
        assert "--sign" in str(error.value.hint)
    assert check(tiny_bundle).signature == "none"


def test_a_whole_new_bundle_under_an_old_signature_is_refused(
    tmp_path: Path, signed: Path, tiny_parts: Parts, keys: tuple[Path, Path]
) -> None:
    pack(tmp_path / "forged", replace(tiny_parts, decision={"method": "argmax"}, model_card="# mine\n"))
    shutil.copyfile(signed / SIGNATURE, tmp_path / "forged" / SIGNATURE)
    check(tmp_path / "forged")
    with pytest.raises(IntegrityError, match="does not hold"):
        check(tmp_path / "forged", public_key=keys[1])


def flips(data: bytes, places: list[int], rng: np.random.Generator) -> Iterator[bytes]:
    for place in places:
        bad = bytearray(data)
        bad[place] ^= int(rng.integers(1, 256))
        yield bytes(bad)


def refused(bundle: Path, key: Path, name: str, places: Callable[[int], list[int]], seed: int) -> int:
    """Flip a byte at each place of one file, and count how often the bundle is refused."""
    good = (bundle / name).read_bytes()
    count = 0
    for bad in flips(good, places(len(good)), np.random.default_rng(seed)):
        (bundle / name).write_bytes(bad)
        with pytest.raises(IntegrityError):
            read_files(bundle, key)
        count += 1
    (bundle / name).write_bytes(good)
    return count


def test_every_byte_of_the_signature_counts(signed: Path, keys: tuple[Path, Path]) -> None:
    size = (signed / SIGNATURE).stat().st_size
    assert refused(signed, keys[1], SIGNATURE, lambda n: list(range(n)), 0) == size
    check(signed, public_key=keys[1])


def test_a_flipped_byte_in_any_file_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(1)
    for index, file in enumerate(sorted(path.name for path in signed.iterdir())):
        found = refused(signed, keys[1], file, lambda n: rng.integers(0, n, 25).tolist(), index)
        assert found == 25
    check(signed, public_key=keys[1])


@pytest.mark.slow
def test_ten_thousand_random_flips_and_every_byte_of_the_manifest(signed: Path, keys: tuple[Path, Path]) -> None:
    size = (signed / "manifest.json").stat().st_size
    assert refused(signed, keys[1], "manifest.json", lambda n: list(range(n)), 0) == size
    files = sorted(path.name for path in signed.iterdir())
    rng = np.random.default_rng(2)
    sizes = np.array([(signed / name).stat().st_size for name in files], float)
    drawn = np.bincount(rng.choice(len(files), ENTRY_FLIPS, p=sizes / sizes.sum()), minlength=len(files))
    total = 0
    for index, (file, many) in enumerate(zip(files, drawn.tolist(), strict=True)):
        total += refused(signed, keys[1], file, lambda n, many=many: rng.integers(0, n, many).tolist(), index)
    assert total == ENTRY_FLIPS
    check(signed, public_key=keys[1])


@pytest.mark.parametrize("name", ["model.onnx", "report.html", SIGNATURE])
def test_a_missing_or_extra_file_is_refused(signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / name).unlink()
    with pytest.raises(IntegrityError):
        check(signed, public_key=keys[1])
    (signed / name).write_bytes(b"")
    with pytest.raises(IntegrityError):
        check(signed, public_key=keys[1])


def test_a_file_exchanged_after_the_signature_was_checked_is_refused(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeft.runtime import manifest as module

    def slow(folder: Path, public_key: Path) -> dict[str, str]:
        found = real(folder, public_key)
        (signed / "manifest.json").write_bytes((signed / "report.json").read_bytes())
        return found

    real = module.signed_digests
    monkeypatch.setattr(module, "signed_digests", slow)
    with pytest.raises(IntegrityError, match="not what was signed"):
        load(signed, public_key=keys[1])


def test_bad_keys_are_named_before_anything_is_built(tmp_path: Path, signed: Path) -> None:
    locked, _ = make_key(tmp_path, "locked", password="secret")  # noqa: S106 - of this test
    other, other_pub = make_key(tmp_path, "edwards", key=ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "text.pem").write_text("hello")
    require_key(SigningKey(locked, "secret"))
    for key in (
        SigningKey(locked),
        SigningKey(locked, "wrong"),
        SigningKey(other),
        SigningKey(tmp_path / "text.pem"),
        SigningKey(tmp_path / "gone.pem"),
    ):
        with pytest.raises(UsageError, match=key.path.name):
            require_key(key)
    for path in (other_pub, tmp_path / "text.pem", tmp_path / "gone.pub"):
        with pytest.raises(UsageError, match=path.name):
            check(signed, public_key=path)


def test_a_locked_key_signs(tmp_path: Path, tiny_parts: Parts) -> None:
    private, public = make_key(tmp_path, "locked", password="secret")  # noqa: S106 - of this test
    pack(tmp_path / "out", tiny_parts, SigningKey(private, "secret"))
    assert check(tmp_path / "out", public_key=public).signature == "verified"


def test_without_the_package_it_says_what_to_install(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for use in (lambda: check(signed, public_key=keys[1]), lambda: require_key(SigningKey(keys[0]))):
        with pytest.raises(DeviceError, match="model-signing") as error:
            use()
        assert (error.value.exit_code, error.value.hint) == (4, "pip install 'edgeft[sign]'")
    assert check(signed).signature == "not checked"


def test_the_verbs_take_a_key(
    signed: Path, keys: tuple[Path, Path], tiny_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(next(tiny_images.rglob("*.png")))
    done = RUNNER.invoke(app, ["verify", str(signed), "--require-signature", str(keys[1]), "--json"])
    assert json.loads(done.stdout)["signature"] == "verified"
    text = RUNNER.invoke(app, ["verify", str(signed), "--require-signature", str(keys[1])]).stdout
    assert "signed  by the holder of the key" in text
    assert RUNNER.invoke(app, ["predict", str(signed), image, "--require-signature", str(keys[1])]).exit_code == 0
    (signed / SIGNATURE).unlink()
    monkeypatch.setenv("EDGEFT_REQUIRE_SIGNATURE", str(keys[1]))
    for verb in (["verify", str(signed)], ["predict", str(signed), image]):
        assert RUNNER.invoke(app, verb).exit_code == 8


def test_the_bill_of_materials_is_cyclonedx_and_names_what_went_in(tmp_path: Path, tiny_parts: Parts) -> None:
    licenses = (
        License("data", "package:pictures/labels.csv", "pictures 1.0", "CC-BY-NC-SA-4.0", ()),
        License("model weights", "./base.pth", "", "not stated", ()),
    )
    made = pack(tmp_path / "out", replace(tiny_parts, licenses=licenses))
    text = (tmp_path / "out" / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = json.loads(text)
    model = told["metadata"]["component"]
    assert (model["name"], model["version"]) == ("tiny", made.content_digest)
    assert model["hashes"] == [{"alg": "SHA-256", "content": made.files["model.onnx"]}]
    parts = {item["bom-ref"]: item for item in told["components"]}
    assert parts["data:package:pictures/labels.csv"]["licenses"] == [{"license": {"id": "CC-BY-NC-SA-4.0"}}]
    assert "licenses" not in parts["weights:./base.pth"]
    assert {"device:edgeft", "device:numpy", "device:onnxruntime", "device:pillow"} <= set(parts)
    assert not {"device:tokenizers", "device:torch"} & set(parts)
    assert [tool["name"] for tool in told["metadata"]["tools"]["components"]] == ["torch"]
    again = pack(tmp_path / "again", replace(tiny_parts, licenses=licenses))
    assert again.evidence["sbom.cdx.json"] == made.evidence["sbom.cdx.json"]


def test_of_texts_it_names_the_tokenizers(text_bundle: Path) -> None:
    told = json.loads((text_bundle / "sbom.cdx.json").read_text())
    assert "device:tokenizers" in {item["bom-ref"] for item in told["components"]}


def test_a_forged_signature_that_is_exchanged_for_the_real_one_is_refused(
    signed: Path, tiny_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[Path, Path]
) -> None:
    from edgeft.runtime import signature as module

    stranger, _ = make_key(tmp_path, "stranger")
    pack(tmp_path / "forged", replace(tiny_parts, model_card="# mine\n"), SigningKey(stranger))
    real, forged = (signed / SIGNATURE).read_bytes(), (tmp_path / "forged" / SIGNATURE).read_bytes()
    (signed / SIGNATURE).write_bytes(forged)
    stated = module._stated

    def exchanged(data: bytes) -> dict[str, str]:
        found = stated(data)
        (signed / SIGNATURE).write_bytes(real)
        return found

    monkeypatch.setattr(module, "_stated", exchanged)
    with pytest.raises(IntegrityError, match="does not hold"):
        module.signed_digests(signed, keys[1])


def test_a_manifest_of_no_numbers_is_damage_and_no_crash(tiny_bundle: Path) -> None:
    text = (tiny_bundle / "manifest.json").read_text()
    for bad in ("NaN", '"\\ud800"'):
        (tiny_bundle / "manifest.json").write_text(text.replace('"name": "tiny"', f'"name": {bad}'))
        with pytest.raises(IntegrityError, match=r"manifest\.json"):
            check(tiny_bundle)
