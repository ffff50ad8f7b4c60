"""ssh://...: what ssh is told, and what its shell does on the device."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeft.core.errors import UsageError
from edgeft.pipeline.device.address import Device


@pytest.mark.parametrize(
    ("text", "target", "port", "python"),
    [
        ("ssh://board", "board", None, "python3"),
        ("ssh://pi@10.0.0.7", "pi@10.0.0.7", None, "python3"),
        ("ssh://pi@board.local:2222", "pi@board.local", "2222", "python3"),
        ("ssh://pi@board/opt/venv/bin/python", "pi@board", None, "/opt/venv/bin/python"),
        ("ssh://[fe80::1]:22/usr/bin/python3", "fe80::1", "22", "/usr/bin/python3"),
    ],
)
def test_addresses(text: str, target: str, port: str | None, python: str) -> None:
    found = Device.parse(text)
    assert (found.text, found.target, found.port, found.python) == (text, target, port, python)


@pytest.mark.parametrize("text", ["board", "ssh://", "ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://h:p", "ssh://a b"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected local, or ssh://"):
        Device.parse(text)


def test_ssh_is_told_port_and_configuration() -> None:
    command = Device.parse("ssh://pi@board:2222", Path("/etc/mine")).command(7)
    assert command[:5] == ["ssh", "-F", "/etc/mine", "-p", "2222"]
    assert command[-2] == "pi@board"
    assert "-F" not in Device.parse("ssh://board").command(7)
    assert "-p" not in Device.parse("ssh://board").command(7)


def run(shell: str, sent: bytes, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    environment = {"TMPDIR": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        ["sh", "-c", shell], input=sent, capture_output=True, check=False, env=environment, timeout=60
    )


def test_the_shell_there_says_what_it_could_not_do_and_leaves_nothing(tmp_path: Path) -> None:
    device = Device.parse(f"ssh://board{sys.executable}")
    cut = run(device.command(100)[-1], b"too few", tmp_path)
    assert cut.returncode == 1
    assert b"the archive was cut off" in cut.stderr
    torn = run(device.command(7)[-1], b"no .tgz and more", tmp_path)
    assert torn.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_a_python_path_with_a_quote_is_no_command(tmp_path: Path) -> None:
    device = Device.parse(f"ssh://board/x';touch {tmp_path}/made;'")
    assert run(device.command(1)[-1], b"x", tmp_path).returncode == 127
    assert list(tmp_path.iterdir()) == []
