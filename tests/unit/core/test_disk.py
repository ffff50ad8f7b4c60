"""A disk that is full or refuses is an environment error that names the place and the option."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeft.core.disk import disk_errors, require_writable, take_space
from edgeft.core.errors import DataError, DeviceError


def guarded(folder: Path, error: Exception) -> None:
    with disk_errors(folder, purpose="the cache", option="--cache"):
        raise error


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is full") as caught:
        guarded(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert str(tmp_path) in caught.value.message
    assert "--cache" in caught.value.hint


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be written: Read-only"):
        guarded(tmp_path, OSError(errno.EROFS, "Read-only file system", str(tmp_path / "x")))


def test_a_refusal_elsewhere_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        guarded(tmp_path / "cache", PermissionError(errno.EACCES, "Permission denied", "/elsewhere/image.png"))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        guarded(tmp_path, DataError("no images"))
    with pytest.raises(RuntimeError, match="unrelated"):
        guarded(tmp_path, RuntimeError("unrelated"))


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="file") as caught:
        require_writable(tmp_path / "file" / "dist", purpose="the bundle's folder", option="--out")
    assert "--out" in caught.value.hint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a tmpfs needs root")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("this container may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    try:
        (folder / "big").write_bytes(bytes(1 << 20))
    except OSError as error:
        raise RuntimeError("a foreign library's own words") from error


def test_a_library_error_on_a_really_full_disk_is_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(DeviceError, match="is full"), disk_errors(small_disk, purpose="the cache", option="--cache"):
        fill(small_disk)


def test_a_sparse_file_takes_its_space_or_is_gone(small_disk: Path) -> None:
    for size in (100_000, 1 << 20):
        with (small_disk / f"{size}.npy").open("wb") as file:
            file.truncate(size)
    take_space(small_disk / "100000.npy", purpose="pixels")
    with pytest.raises(DeviceError, match="no room for 1048576 bytes of pixels"):
        take_space(small_disk / "1048576.npy", purpose="pixels")
    (kept,) = small_disk.iterdir()
    assert kept.stat().st_blocks * 512 >= 100_000


def test_the_probe_of_another_run_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".edgeft-probe"
    other.write_bytes(b"of another run")
    require_writable(tmp_path, purpose="the cache", option="--cache")
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
    assert other.read_bytes() == b"of another run"
