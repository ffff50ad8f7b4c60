"""Runs the command line as a user would: a fresh process, JSON from stdout."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
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


SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ON_DEVICE = r"^\S*python\S* -m edgeft\.pipeline\.device\.on_device$"
"""The job on the device, not the shell around it."""


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def _processes(pattern: str) -> list[int]:
    done = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass(frozen=True)
class Loopback:
    """A device that is this machine, behind a real OpenSSH server with keys of its own.

    Args:
        start: ssh://user@host:port.
        ssh_config: that reaches it.
        folder: where its jobs lie, each in a folder of its own.
    """

    start: str
    ssh_config: Path
    folder: Path

    @property
    def address(self) -> str:
        return f"{self.start}{sys.executable}"

    def jobs(self) -> list[int]:
        """Processes of edgeft on the device."""
        return [found for found in _processes(ON_DEVICE) if self._is_ours(found)]

    def clients(self) -> list[int]:
        """Connections to it."""
        return _processes(f"^ssh -F {self.ssh_config} ")

    def cut(self) -> bool:
        """Kill the server's end of a connection that runs a job; whether there was one."""
        for found in self.jobs():
            try:
                session = _parent(_parent(found))  # job > shell > server's session
                if "sshd" in Path(f"/proc/{session}/comm").read_text():
                    os.kill(session, signal.SIGKILL)
                    return True
            except OSError:
                continue  # it has just ended
        return False

    def left_over(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def _is_ours(self, process: int) -> bool:
        try:
            return self.folder in Path(f"/proc/{process}/cwd").readlink().parents
        except OSError:
            return False


@pytest.fixture
def free_port() -> Callable[[], int]:
    return _free_port


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    if not Path(SSHD).is_file() or shutil.which("ssh") is None:
        pytest.skip("sshd is not here: apt-get update && apt-get install -y openssh-server")
    folder, port = tmp_path_factory.mktemp("sshd"), _free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "jobs").mkdir()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSetEnv TMPDIR={folder}/jobs\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n IdentityFile {folder}/user\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {folder}/known\n LogLevel ERROR\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-f", folder / "sshd_config", "-E", folder / "log"])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    user = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
    yield Loopback(f"ssh://{user}@127.0.0.1:{port}", folder / "ssh_config", folder / "jobs")
    server.terminate()
    server.wait()


@pytest.fixture
def device(loopback: Loopback) -> Iterator[Loopback]:
    """The device; a test that leaves a process or a file there fails."""
    yield loopback
    for _ in range(100):
        if not loopback.left_over() and not loopback.jobs():
            return
        time.sleep(0.1)
    assert (loopback.left_over(), loopback.jobs()) == ([], [])


@pytest.fixture(scope="session")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the oldest onnxruntime that pyproject.toml promises, and nothing else."""
    promised = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    (version,) = [line.partition(">=")[2] for line in promised if line.startswith("onnxruntime>=")]
    folder = tmp_path_factory.mktemp("oldest")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"]
    install += ["--no-deps", "--target", str(folder), f"onnxruntime=={version}.*"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and re.search(r"Temporary failure|NewConnectionError|ConnectTimeout", done.stderr):
        pytest.skip("pip cannot fetch the oldest onnxruntime: no connection")
    assert done.returncode == 0, done.stderr
    assert list(folder.glob(f"onnxruntime-{version}.*"))
    return folder
