"""Runs the command line as a user would: a fresh process, JSON from stdout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

# Loaded by every Python process of the run (latency workers too): a socket that leaves the machine is an error.
NO_NETWORK = """
import sys

def _refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo"} and isinstance(arguments[-1], (tuple, str, int)):
        target = arguments[1] if event == "socket.connect" else arguments
        if isinstance(target, tuple):
            raise RuntimeError(f"network access during an offline run: {event} {target}")

sys.addaudithook(_refuse)
"""


@dataclass(frozen=True)
class Ran:
    """A finished command: exit code, the JSON object it printed, and what it told on stderr."""

    code: int
    json: dict[str, Any]
    stderr: str


@pytest.fixture(scope="session")
def offline_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("no_network")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="session")
def edgeft(offline_environment: dict[str, str]) -> Callable[..., Ran]:
    def run(*arguments: str | Path) -> Ran:
        command = [sys.executable, "-m", "edgeft", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=offline_environment, cwd=REPOSITORY, timeout=1500
        )
        assert done.stdout.strip(), f"no JSON on stdout; exit {done.returncode}\n{done.stderr}"
        return Ran(done.returncode, json.loads(done.stdout), done.stderr)

    return run
