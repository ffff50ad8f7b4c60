"""`edgeft bench --device ssh://...` against a real OpenSSH server on loopback, with a key of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.events import Event, Progress
from edgeft.pipeline import remote
from edgeft.pipeline.bench import Options, measure

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
THERE = r"^\S*python\S* -m edgeft\.pipeline\.on_device$"
"""The process on the device, not the shell around it."""
SMALL = {"processes": 2, "samples": 5}


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not Path(SSHD).is_file() or shutil.which("ssh") is None:
        pytest.skip("sshd is not here: apt-get update && apt-get install -y openssh-server")
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
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
    os.environ["EDGEFT_SSH_CONFIG"] = str(folder / "ssh_config")
    user = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
    yield f"ssh://{user}@127.0.0.1:{port}{sys.executable}"
    del os.environ["EDGEFT_SSH_CONFIG"]
    server.terminate()
    server.wait()


def there(**settings: Any) -> Options:  # noqa: ANN401 - any option
    return Options(ssh_config=Path(os.environ["EDGEFT_SSH_CONFIG"]), **settings)


def left_over() -> list[Path]:
    return sorted(Path(os.environ.get("TMPDIR", "/tmp")).glob("edgeft-??????"))  # noqa: S108 - where mktemp puts them


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = left_over()
    yield
    for _ in range(100):
        if left_over() == before:
            return
        time.sleep(0.1)
    assert left_over() == before


def test_a_bundle_is_measured_there_as_it_would_be_here(address: str, tiny_bundle: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    kept = tmp_path / "kept.json"
    found = measure(tiny_bundle, there(device=address, baseline=kept, **SMALL), emit=heard.append)
    here = measure(tiny_bundle, Options(**SMALL))
    assert (found["device"], found["status"], found["baseline"]) == (address, "ok", str(kept))
    assert set(found) - {"device"} == set(here)
    assert found["subject"] == here["subject"]
    assert found["machine"]["cpu"] == here["machine"]["cpu"]
    assert found["bench"]["model"]["samples"] == here["bench"]["model"]["samples"] == 10
    assert any(isinstance(event, Progress) for event in heard)
    assert json.loads(kept.read_text())["kind"] == "baseline"


def test_texts_and_bare_models_go_the_same_way(address: str, text_bundle: Path, tiny_graph: Path) -> None:
    assert measure(text_bundle, there(device=address, **SMALL))["subject"]["contract"]["kind"] == "text"
    assert measure(tiny_graph, there(device=address, **SMALL))["subject"]["name"] == "model"


def test_what_is_wrong_there_is_said_here(address: str, tiny_bundle: Path) -> None:
    (tiny_bundle / "LICENSES.md").write_text("mine")
    with pytest.raises(IntegrityError, match=r"ssh://.*LICENSES\.md: sha256"):
        measure(tiny_bundle, there(device=address, **SMALL))


def test_a_device_that_lacks_something_says_what(address: str, tiny_bundle: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    start, _, _ = address.partition(sys.executable)
    with pytest.raises(DeviceError, match=r"ended with 1 and said: .*No module named") as caught:
        measure(tiny_bundle, there(device=f"{start}{bare}", **SMALL))
    assert caught.value.hint is not None
    assert "numpy, onnxruntime" in caught.value.hint


def test_no_connection_is_said_at_once(address: str, tiny_bundle: Path) -> None:
    del address
    with pytest.raises(DeviceError, match=r"no connection: .*refused"):
        measure(tiny_bundle, there(device=f"ssh://127.0.0.1:{free_port()}", **SMALL))


def test_a_device_that_vanishes_in_the_middle_is_an_error(
    address: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 3.0)
    stopped: list[int] = []

    def freeze(event: Event) -> None:
        if isinstance(event, Progress) and not stopped:
            found = subprocess.check_output(["pgrep", "-f", THERE], text=True).split()
            stopped.extend(map(int, found))
            for process in stopped:
                os.kill(process, signal.SIGSTOP)

    try:
        with pytest.raises(DeviceError, match="told nothing for 3 s: it vanished"):
            measure(tiny_bundle, there(device=address, processes=20, samples=5), emit=freeze)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    assert stopped


def test_a_line_that_is_cut_leaves_nothing_running(address: str, tiny_bundle: Path) -> None:
    cut: list[int] = []

    def hang_up(event: Event) -> None:
        if isinstance(event, Progress) and not cut:
            found = subprocess.check_output(["pgrep", "-f", "^ssh .*edgeft.pipeline.on_device"], text=True).split()
            cut.extend(map(int, found))
            os.kill(cut[0], signal.SIGKILL)

    with pytest.raises(DeviceError, match="ended with -9"):
        measure(tiny_bundle, there(device=address, processes=60, samples=200, seconds=60), emit=hang_up)
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", THERE], check=False, capture_output=True).returncode:
            return
        time.sleep(0.1)
    pytest.fail("the device still measures, and nobody listens")


@pytest.mark.parametrize(
    "text", ["pi@board", "ssh://", "ssh://a b", "ssh://host:x", "http://host", "ssh://-oProxyCommand=x"]
)
def test_what_is_no_address_is_refused(text: str, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="expected local, or ssh://"):
        measure(tiny_bundle, there(device=text))


def test_data_that_lies_here_stays_here(tiny_bundle: Path, tmp_path: Path) -> None:
    for options in ({"inputs": str(tmp_path)}, {"evaluation": tmp_path, "baseline": tmp_path / "b.json"}):
        with pytest.raises(UsageError, match="measures on golden images or texts, or on noise"):
            measure(tiny_bundle, there(device="ssh://host", **options))  # type: ignore[arg-type]  # options of a case


def test_the_command_takes_a_configuration_by_option_or_environment(address: str, tiny_bundle: Path) -> None:
    command = ["bench", str(tiny_bundle), "--device", address, "--processes", "2", "--samples", "5", "--json"]
    by_environment = CliRunner().invoke(app, command)
    given = os.environ["EDGEFT_SSH_CONFIG"]
    by_option = CliRunner().invoke(app, [*command, "--ssh-config", given], env={"EDGEFT_SSH_CONFIG": None})
    assert (by_environment.exit_code, by_option.exit_code) == (0, 0), by_environment.output + by_option.output
    assert json.loads(by_option.stdout)["device"] == address
    missing = CliRunner().invoke(app, [*command, "--ssh-config", f"{given}.gone"])
    assert missing.exit_code == 2
    assert "ssh_config.gone" in missing.output
