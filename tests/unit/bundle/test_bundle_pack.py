import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edgeft.bundle import pack as module
from edgeft.bundle import swap
from edgeft.bundle.pack import Parts, pack
from edgeft.core.errors import DataError, UsageError

FILES = {
    "manifest.json",
    "model.onnx",
    "golden.npz",
    "LICENSES.md",
    "report.html",
    "report.json",
    "MODEL_CARD.md",
    "sbom.cdx.json",
}


def manifest(bundle: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((bundle / "manifest.json").read_text())
    return found


def test_what_is_inside(tmp_path: Path, tiny_parts: Parts) -> None:
    pack(tmp_path / "out", tiny_parts)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    found = manifest(tmp_path / "out")
    assert set(found["files"]) == {"model.onnx", "golden.npz", "LICENSES.md"}  # type: ignore[call-overload]
    assert set(found["evidence"]) == {"report.html", "report.json", "MODEL_CARD.md", "sbom.cdx.json"}  # type: ignore[call-overload]
    assert found["classes"] == ["red", "green", "blue"]
    assert found["ok_class"] == "green"
    assert found["run"] == tiny_parts.run
    for name, digest in {**found["files"], **found["evidence"]}.items():  # type: ignore[dict-item]
        assert sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


def test_golden_vectors_are_validation_images(tmp_path: Path, tiny_parts: Parts) -> None:
    pack(tmp_path / "out", tiny_parts)
    golden = np.load(tmp_path / "out" / "golden.npz", allow_pickle=False)
    rows = [json.loads(line) for line in (tiny_parts.data / "rows.jsonl").read_text().splitlines()]
    stored = np.load(tiny_parts.data / "pixels.npy")
    validation = {stored[row["index"]].tobytes() for row in rows if row["split"] == "val"}
    assert golden["pixels"].shape == (16, 16, 16, 3)
    assert all(one.tobytes() in validation for one in golden["pixels"])
    files = {(tiny_parts.images / row["path"]).read_bytes() for row in rows if row["split"] == "val"}
    assert all(golden[f"raw_{index}"].tobytes() in files for index in range(4))
    logits = 4.0 * ((golden["pixels"].astype(np.float64) - 127) / 128).mean(axis=(1, 2))
    by_hand = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(golden["scores"], by_hand, atol=1e-6)


def test_the_content_digest_covers_what_is_deterministic(tmp_path: Path, tiny_parts: Parts) -> None:
    first = pack(tmp_path / "a", tiny_parts).content_digest
    other_run = replace(
        tiny_parts,
        run={**tiny_parts.run, "started": "2025-02-02T00:00:00Z"},
        report_html="<p>",
        report_json={"x": 1},
        model_card="#",
    )
    assert pack(tmp_path / "b", other_run).content_digest == first
    assert (tmp_path / "a" / "golden.npz").read_bytes() == (tmp_path / "b" / "golden.npz").read_bytes()
    assert pack(tmp_path / "c", replace(tiny_parts, name="other")).content_digest != first
    assert pack(tmp_path / "d", replace(tiny_parts, precision="int8")).content_digest != first


@pytest.mark.parametrize("exchange", [True, False])
def test_an_older_bundle_is_replaced_whole(
    tmp_path: Path,
    tiny_parts: Parts,
    exchange: bool,  # noqa: FBT001 - a test parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "_exchange", lambda *_: False)
    pack(tmp_path / "out", tiny_parts)
    (tmp_path / ".out.123.tmp").mkdir()
    pack(tmp_path / "out", replace(tiny_parts, name="newer"))
    assert manifest(tmp_path / "out")["name"] == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_bundle(tmp_path: Path, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "out", tiny_parts)
    before = (tmp_path / "out" / "manifest.json").read_bytes()

    def full(path: Path, data: bytes) -> None:
        if path.name == "golden.npz":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        pack(tmp_path / "out", replace(tiny_parts, name="newer"))
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def stranger_folder(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")


def stranger_file(out: Path) -> None:
    out.write_text("x")


def stranger_link(out: Path) -> None:
    out.symlink_to(out.parent)


@pytest.mark.parametrize("stranger", [stranger_folder, stranger_file, stranger_link])
def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, tiny_parts: Parts, stranger: Callable[[Path], None]) -> None:
    stranger(tmp_path / "out")
    with pytest.raises(UsageError, match="out"):
        pack(tmp_path / "out", tiny_parts)
    assert (tmp_path / "out").exists()


def test_no_validation_images(tmp_path: Path, tiny_parts: Parts) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_parts.data, data)
    rows = [json.loads(line) for line in (data / "rows.jsonl").read_text().splitlines()]
    (data / "rows.jsonl").write_text("".join(json.dumps({**row, "split": "train"}) + "\n" for row in rows))
    with pytest.raises(DataError, match="no val rows"):
        pack(tmp_path / "out", replace(tiny_parts, data=data))


def test_a_targets_own_files_come_along_and_a_script_stays_one(tmp_path: Path, tiny_parts: Parts) -> None:
    (tmp_path / "build_engine.sh").write_text("#!/bin/sh\n")
    (tmp_path / "build_engine.sh").chmod(0o755)
    made = pack(tmp_path / "out", replace(tiny_parts, more=(tmp_path / "build_engine.sh",)))
    assert "build_engine.sh" in made.files
    assert (tmp_path / "out" / "build_engine.sh").stat().st_mode & 0o111
    pack(tmp_path / "out", tiny_parts)  # a bundle with other files takes its place
    assert not (tmp_path / "out" / "build_engine.sh").exists()
