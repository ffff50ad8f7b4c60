"""`--device ssh://...` of bench and verify against a real OpenSSH server on loopback, with a key of its own."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.events import Event, Progress
from edgeft.pipeline.bench import Options, measure
from edgeft.pipeline.device import connection
from edgeft.pipeline.device.address import Device
from edgeft.pipeline.device.remote import check, facts, launching
from edgeft.pipeline.subject import open_subject, requests
from edgeft.runtime.worker import Request

SMALL = {"processes": 2, "samples": 5}


def there(device: Any, **settings: Any) -> Options:  # noqa: ANN401 - the fixture's class, any option
    return Options(ssh_config=device.ssh_config, device=device.address, **settings)


def reached(device: Any, python: str | None = None) -> Device:  # noqa: ANN401 - the fixture's class
    return Device.parse(device.address if python is None else f"{device.start}{python}", device.ssh_config)


def test_a_bundle_is_measured_there_as_it_would_be_here(device: Any, tiny_bundle: Path, tmp_path: Path) -> None:  # noqa: ANN401
    heard: list[Event] = []
    kept = tmp_path / "kept.json"
    found = measure(tiny_bundle, there(device, baseline=kept, **SMALL), emit=heard.append)
    here = measure(tiny_bundle, Options(**SMALL))
    assert (found["device"], found["status"], found["baseline"]) == (device.address, "ok", str(kept))
    assert set(found) - {"device"} == set(here)
    assert found["subject"] == here["subject"]
    assert found["machine"]["cpu"] == here["machine"]["cpu"]
    assert found["bench"]["model"]["samples"] == here["bench"]["model"]["samples"] == 10
    assert any(isinstance(event, Progress) for event in heard)
    assert json.loads(kept.read_text())["kind"] == "baseline"


def test_texts_and_bare_models_go_the_same_way(device: Any, text_bundle: Path, tiny_graph: Path) -> None:  # noqa: ANN401
    assert measure(text_bundle, there(device, **SMALL))["subject"]["contract"]["kind"] == "text"
    assert measure(tiny_graph, there(device, **SMALL))["subject"]["name"] == "model"


def test_what_is_wrong_there_is_said_here(device: Any, tiny_bundle: Path) -> None:  # noqa: ANN401
    (tiny_bundle / "LICENSES.md").write_text("mine")
    with pytest.raises(IntegrityError, match=r"ssh://.*LICENSES\.md: sha256"):
        measure(tiny_bundle, there(device, **SMALL))


def test_a_device_that_lacks_something_says_what(device: Any, tiny_bundle: Path, tmp_path: Path) -> None:  # noqa: ANN401
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DeviceError, match=r"python\S* there lacks numpy>=1\.26 \(missing\), onnxruntime") as caught:
        check(tiny_bundle, reached(device, str(bare)))
    assert caught.value.hint is not None
    assert "name another interpreter" in caught.value.hint
    bare.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(DeviceError, match="ended with 3 and said: nothing") as caught:
        check(tiny_bundle, reached(device, str(bare)))
    assert "numpy, onnxruntime" in str(caught.value.hint)
    with pytest.raises(DeviceError, match=r"ended with 127 and said: .*(not found|No such file)"):
        check(tiny_bundle, reached(device, "/nowhere/python"))


def test_no_connection_is_said_at_once(device: Any, tiny_bundle: Path, free_port: Callable[[], int]) -> None:  # noqa: ANN401
    with pytest.raises(DeviceError, match=r"no connection: .*refused"):
        check(tiny_bundle, Device.parse(f"ssh://127.0.0.1:{free_port()}", device.ssh_config))


def test_a_device_that_vanishes_in_the_middle_is_an_error(
    device: Any,  # noqa: ANN401
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SILENCE_S", 3.0)
    monkeypatch.setattr(connection, "UNPACKING_S", 3.0)
    stopped: list[int] = []

    def freeze(event: Event) -> None:
        if isinstance(event, Progress) and not stopped:
            stopped.extend(device.jobs())
            for process in stopped:
                os.kill(process, signal.SIGSTOP)

    try:
        with pytest.raises(DeviceError, match="told nothing for 3 s: it vanished"):
            measure(tiny_bundle, there(device, processes=20, samples=5), emit=freeze)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    assert stopped


@pytest.mark.parametrize("whose", ["clients", "jobs"])
def test_a_line_that_is_cut_leaves_nothing_running(device: Any, tiny_bundle: Path, whose: str) -> None:  # noqa: ANN401
    """The fixture looks for what is left there."""
    cut: list[int] = []

    def hang_up(event: Event) -> None:
        if isinstance(event, Progress) and not cut:
            cut.extend(getattr(device, whose)())
            os.kill(cut[0], signal.SIGKILL)

    with pytest.raises(DeviceError, match=r"ended with (-9|137)") as caught:
        measure(tiny_bundle, there(device, processes=60, samples=200, seconds=60), emit=hang_up)
    assert caught.value.hint == "run the same command again; nothing is left running on the device"


@pytest.mark.parametrize(
    "text", ["pi@board", "ssh://", "ssh://a b", "ssh://host:x", "http://host", "ssh://-oProxyCommand=x", "ssh://-o"]
)
def test_what_is_no_address_is_refused(text: str, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="expected local, or ssh://"):
        measure(tiny_bundle, Options(device=text))


def test_data_that_lies_here_stays_here(tiny_bundle: Path, tmp_path: Path) -> None:
    for options in ({"inputs": str(tmp_path)}, {"evaluation": tmp_path, "baseline": tmp_path / "b.json"}):
        with pytest.raises(UsageError, match="measures on golden images or texts, or on noise"):
            measure(tiny_bundle, Options(device="ssh://host", **options))  # type: ignore[arg-type]  # options of a case


def test_the_command_takes_a_configuration_by_option_or_environment(device: Any, tiny_bundle: Path) -> None:  # noqa: ANN401
    command = ["bench", str(tiny_bundle), "--device", device.address, "--processes", "2", "--samples", "5", "--json"]
    given = str(device.ssh_config)
    by_environment = CliRunner().invoke(app, command, env={"EDGEFT_SSH_CONFIG": given})
    by_option = CliRunner().invoke(app, [*command, "--ssh-config", given], env={"EDGEFT_SSH_CONFIG": None})
    assert (by_environment.exit_code, by_option.exit_code) == (0, 0), by_environment.output + by_option.output
    assert json.loads(by_option.stdout)["device"] == device.address
    missing = CliRunner().invoke(app, [*command, "--ssh-config", f"{given}.gone"])
    assert missing.exit_code == 2
    assert "ssh_config.gone" in missing.output


def verify(device: Any, bundle: Path, *more: str) -> Any:  # noqa: ANN401 - the fixture's class, click's result
    command = ["verify", str(bundle), "--device", device.address, "--ssh-config", str(device.ssh_config), *more]
    return CliRunner().invoke(app, command)


def test_a_bundle_is_checked_there_as_it_would_be_here(device: Any, tiny_bundle: Path) -> None:  # noqa: ANN401
    here = CliRunner().invoke(app, ["verify", str(tiny_bundle), "--json"])
    found = verify(device, tiny_bundle, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == {**json.loads(here.stdout), "device": device.address}
    told = verify(device, tiny_bundle)
    assert f"device  {device.address}" in told.stdout


def test_texts_are_checked_there(device: Any, text_bundle: Path) -> None:  # noqa: ANN401
    assert check(text_bundle, reached(device))["name"] == "words"


@pytest.mark.parametrize("how", ["changed", "extra", "missing"])
def test_a_damaged_bundle_ends_with_8_there_too(device: Any, tiny_bundle: Path, how: str) -> None:  # noqa: ANN401
    if how == "changed":
        model = bytearray((tiny_bundle / "model.onnx").read_bytes())
        model[len(model) // 2] ^= 1
        (tiny_bundle / "model.onnx").write_bytes(model)
    elif how == "extra":
        (tiny_bundle / "more.txt").write_text("")
    else:
        (tiny_bundle / "golden.npz").unlink()
    found = verify(device, tiny_bundle, "--json")
    assert found.exit_code == 8
    assert device.address in json.loads(found.stdout)["message"]


def test_a_bundle_that_is_not_there_is_said_before_a_connection(device: Any, tmp_path: Path) -> None:  # noqa: ANN401
    found = verify(device, tmp_path / "none", "--json")
    assert found.exit_code == 4
    assert "none: no such file or folder" in json.loads(found.stdout)["message"]


def test_a_connection_that_breaks_off_during_a_check_is_an_error(device: Any, tiny_bundle: Path) -> None:  # noqa: ANN401
    """The fixture looks for what is left there."""
    waits = threading.Event()

    def cut() -> None:
        while not device.cut() and not waits.wait(0.005):
            pass

    watching = threading.Thread(target=cut)
    watching.start()
    try:
        with pytest.raises(DeviceError, match=r"(the connection broke off|no connection): ") as caught:
            check(tiny_bundle, reached(device))
    finally:
        waits.set()
        watching.join()
    assert caught.value.exit_code == 4


def test_a_connection_that_breaks_off_between_timings_is_an_error(device: Any, tiny_graph: Path) -> None:  # noqa: ANN401
    request = Request(str(tiny_graph), 1, False, 5, 1, 1.0)

    def measured() -> None:
        with launching(reached(device), [request]) as launch:
            launch(request)
            assert device.cut()
            launch(request)

    with pytest.raises(DeviceError, match="the connection broke off: ") as caught:
        measured()
    assert caught.value.hint == "run the same command again; nothing is left running on the device"


def test_facts_are_found_without_any_library(device: Any, tmp_path: Path) -> None:  # noqa: ANN401
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    found = facts(reached(device, str(bare)))
    assert found["libraries"]["onnxruntime"] is None
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert facts(reached(device))["libraries"]["onnxruntime"]


def test_requests_are_timed_there_one_by_one(device: Any, tiny_graph: Path) -> None:  # noqa: ANN401
    request = Request(str(tiny_graph), 1, False, 5, 1, 1.0)
    with launching(reached(device), [request]) as launch:
        timings, jobs = [launch(request)], device.jobs()
        timings.append(launch(request))
        assert device.jobs() == jobs
    assert len(jobs) == 1
    assert [len(timing.samples_ms) for timing in timings] == [5, 5]


def test_raw_images_and_texts_are_timed_there(
    device: Any,  # noqa: ANN401
    tiny_bundle: Path,
    text_bundle: Path,
    tmp_path: Path,
) -> None:
    for bundle in (tiny_bundle, text_bundle):
        place = tmp_path / bundle.name
        place.mkdir()
        asked = requests(open_subject(bundle), None, place, threads=1, spinning=False, samples=6, seconds=2)
        listed = [request for request in asked if request is not None]
        assert len(listed) == 2
        with launching(reached(device), listed) as launch:
            assert [len(launch(request).samples_ms) for request in listed] == [6, 6]


def test_a_request_that_fails_there_is_an_error_here(device: Any, tmp_path: Path) -> None:  # noqa: ANN401
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no model")
    request = Request(str(broken), 1, False, 5, 1, 1.0)
    with (
        pytest.raises(DeviceError, match=r"ssh://.*timing files/0/model\.onnx"),
        launching(reached(device), [request]) as launch,
    ):
        launch(request)


def test_another_runtime_is_not_timed_there(tiny_graph: Path) -> None:
    request = Request(str(tiny_graph), 1, False, 5, 1, 1.0, exporter="some:Exporter")
    with pytest.raises(UsageError, match="in onnxruntime alone"), launching(Device.parse("ssh://host"), [request]):
        pass
