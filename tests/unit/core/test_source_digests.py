"""Digests of the user's files."""

import hashlib
from pathlib import Path

import pytest

from edgeft.core.errors import DataError
from edgeft.core.sources import SourceDigests


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_file_is_its_sha256(images: Path) -> None:
    assert SourceDigests().of(images / "a/1.png") == hashlib.sha256(b"a/1.png").hexdigest()


def test_content_names_and_additions_count(images: Path) -> None:
    seen = {SourceDigests().of(images)}
    (images / "a/1.png").write_text("other")
    seen.add(SourceDigests().of(images))
    (images / "a/1.png").rename(images / "a/9.png")
    seen.add(SourceDigests().of(images))
    (images / "c.png").write_text("")
    seen.add(SourceDigests().of(images))
    assert len(seen) == 4


def test_hidden_and_excluded_files_do_not_count(images: Path) -> None:
    before = SourceDigests((images / "dist", images / "recipe.yaml")).of(images)
    for name in (".edgeft/store/x", "dist/model.onnx", "recipe.yaml", "a/.DS_Store"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_text("?")
    assert SourceDigests((images / "dist", images / "recipe.yaml")).of(images) == before


def test_each_source_is_read_once(images: Path) -> None:
    digests = SourceDigests()
    before = digests.of(images)
    (images / "a/1.png").write_text("changed while the run goes on")
    assert digests.of(images) == before


def test_a_link_back_to_its_own_folder_ends(images: Path) -> None:
    before = SourceDigests().of(images)
    (images / "a" / "loop").symlink_to(images)
    assert SourceDigests().of(images) == before


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        SourceDigests().of(tmp_path / "nowhere")
