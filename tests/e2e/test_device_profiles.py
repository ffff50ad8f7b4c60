"""`edgeft devices` against a real OpenSSH server, and `--device NAME` wherever an address may stand."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgeft.cli.main import app


@pytest.fixture
def file(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ANN401 - the fixture's class
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEFT_SSH_CONFIG", str(device.ssh_config))
    return tmp_path / "config" / "edgeft" / "devices.yaml"


def edgeft(*arguments: str) -> Any:  # noqa: ANN401 - click's result
    return CliRunner().invoke(app, list(arguments))


def answer(*arguments: str) -> dict[str, Any]:
    done = edgeft(*arguments, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.exit_code
    return found


def test_a_device_is_added_listed_checked_and_removed(file: Path, device: Any) -> None:  # noqa: ANN401
    added = answer("devices", "add", "board", device.address, "--note", "line 3")
    assert (added["status"], added["exit_code"], added["file"]) == ("ok", 0, str(file))
    stored = yaml.safe_load(file.read_text())
    assert set(stored) == {"board"}
    assert set(stored["board"]) == {"address", "note", "seen", "facts"}
    facts = stored["board"]["facts"]
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["architecture"] == os.uname().machine
    assert facts["memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["libraries"]["onnxruntime"]

    (here, board) = answer("devices", "ls")["devices"]
    assert (here["name"], here["address"]) == ("local", "local")
    assert (board["name"], board["note"], board["seen"]) == ("board", "line 3", stored["board"]["seen"])
    shown = edgeft("devices", "ls").stdout
    assert "line 3" in shown
    assert "state" not in shown  # a column without a word is left out

    (checked,) = answer("devices", "check", "board")["devices"]
    assert (checked["state"], checked["changed"], checked["lacks"]) == ("ok", [], [])
    (local,) = answer("devices", "check", "local")["devices"]
    assert local["facts"]["cpu"] == checked["facts"]["cpu"]

    taken = edgeft("devices", "add", "board", device.address)
    assert taken.exit_code == 2
    assert "edgeft devices rm board" in taken.output
    assert answer("devices", "rm", "board")["devices"][0]["state"] == "removed"
    assert answer("devices", "check")["devices"] == []
    assert edgeft("devices", "rm", "board").exit_code == 2


def test_what_changed_is_named_and_kept_on_request(file: Path, device: Any) -> None:  # noqa: ANN401
    answer("devices", "add", "board", device.address)
    stored = yaml.safe_load(file.read_text())
    now = stored["board"]["facts"]["libraries"]["onnxruntime"]
    stored["board"]["facts"]["libraries"]["onnxruntime"] = "1.23.0"
    stored["board"]["facts"]["gpu"] = "a card"
    file.write_text(yaml.safe_dump(stored))
    (found,) = answer("devices", "check")["devices"]
    assert found["state"] == "changed"
    assert {"fact": "libraries.onnxruntime", "was": "1.23.0", "is": now} in found["changed"]
    assert {change["fact"] for change in found["changed"]} == {"gpu", "libraries.onnxruntime"}
    told = edgeft("devices", "check", "board", "--update").stdout
    assert f"board: libraries.onnxruntime was 1.23.0, is {now}" in told
    assert answer("devices", "check")["devices"][0]["state"] == "ok"


def test_a_device_that_is_gone_or_lacks_something_ends_with_4(file: Path, device: Any, tmp_path: Path) -> None:  # noqa: ANN401
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    answer("devices", "add", "board", device.address)
    assert answer("devices", "add", "gone", f"{device.start}{python}")["exit_code"] == 0
    python.unlink()
    found = answer("devices", "check")
    assert (found["status"], found["exit_code"]) == ("error", 4)
    assert [(each["name"], each["state"]) for each in found["devices"]] == [("board", "ok"), ("gone", "unreachable")]
    assert "No such file" in found["devices"][1]["error"]
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    (lacking,) = answer("devices", "check", "gone")["devices"]
    assert (lacking["state"], lacking["lacks"][0]) == ("lacking", "numpy>=1.26 (missing)")
    before = file.read_text()
    refused = edgeft("devices", "add", "bare", f"{device.start}{python}")
    assert refused.exit_code == 4
    assert "lacks numpy>=1.26" in refused.output
    assert file.read_text() == before


def test_a_name_stands_for_its_address(file: Path, device: Any, tiny_bundle: Path) -> None:  # noqa: ANN401
    answer("devices", "add", "board", device.address)
    assert file.is_file()
    assert answer("verify", str(tiny_bundle), "--device", "board")["device"] == device.address
    small = ("--processes", "1", "--samples", "5")
    assert answer("bench", str(tiny_bundle), "--device", "board", *small)["device"] == device.address
    unknown = answer("verify", str(tiny_bundle), "--device", "bord")
    assert unknown["exit_code"] == 2
    assert "did you mean board?" in unknown["hint"]
