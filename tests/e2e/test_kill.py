"""kill -9 at random moments of a build: the next run completes, and the bundle is the same, byte for byte."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "samples" / "solar_cells"
KILLS = int(os.environ.get("EDGEFT_TEST_KILLS", "20"))

pytestmark = pytest.mark.slow


def _content_digest(bundle: str) -> str:
    return json.loads((Path(bundle) / "manifest.json").read_text())["content_digest"]


def test_every_killed_build_is_finished_by_the_next_run(edgeft: Callable, tmp_path: Path) -> None:
    recipe = tmp_path / "solar_cells"
    shutil.copytree(SAMPLE, recipe, ignore=shutil.ignore_patterns(".edgeft", "dist"))
    arguments = ["build", str(recipe), "--smoke", "--no-latency"]
    started = time.monotonic()
    reference = edgeft(*arguments, "--cache", tmp_path / "reference", "--out", tmp_path / "reference_bundle")
    seconds = time.monotonic() - started
    expected = _content_digest(reference.json["bundle"])
    moments = random.Random(20260101)  # noqa: S311 - moments to kill at, no secret
    for number in range(KILLS):
        cache, out = tmp_path / f"cache{number}", tmp_path / f"bundle{number}"
        command = [sys.executable, "-m", "edgeft", *arguments, "--cache", str(cache), "--out", str(out), "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(0.05, 0.98) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        resumed = edgeft(*arguments, "--cache", cache, "--out", out)
        assert resumed.code == reference.code, f"kill {number}: {resumed.stderr}"
        assert _content_digest(resumed.json["bundle"]) == expected, f"kill {number}"
        subprocess.run(["chmod", "-R", "u+w", str(cache)], check=True)
        shutil.rmtree(cache)
