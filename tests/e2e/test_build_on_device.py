"""`edgeft build --device ...`: candidates are timed on the device, the bundle is replayed there, training is not.

The images are of three colours and the network has no pretrained weights: what it is worth does not matter here.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.events import Event, Progress, StageStarted, ignore
from edgeft.core.store import Store
from edgeft.pipeline.build import build
from edgeft.pipeline.device.address import Device
from edgeft.pipeline.device.place import There
from edgeft.pipeline.record import RunRecord
from edgeft.recipe.load import load_recipe

RECIPE = """\
version: 1
data: {{source: {images}}}
model: {{base: timm/test_resnet, weights: null, input: {{height: 32, width: 32, resize: squash}}}}
finetune: {{method: full, epochs: 1}}
compress: {{calib_images: 16}}
verify: {{accuracy: {{max_drop_pp: 90}}, latency: {{rounds: [3], samples_per_round: 5}}}}
bundle: {{name: colours}}
"""
ELSEWHERE = """\
import onnxruntime
_run = onnxruntime.InferenceSession.run
onnxruntime.InferenceSession.run = lambda *given, **more: [found + 0.25 for found in _run(*given, **more)]
"""
"""A runtime that computes something else."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    (folder / "recipe.yaml").write_text(RECIPE.format(images=tiny_images))
    return folder


def built(recipe: Path, address: Device, emit: Callable[[Event], None], *overrides: str, **more: Any) -> RunRecord:  # noqa: ANN401
    """Build on a device as the command does, in this process."""
    found = load_recipe(recipe, overrides)
    return build(found, cache=recipe / ".edgeft", emit=emit, device=There(address, emit), **more)


def python_there(folder: Path, *options: str, path: Path | None = None) -> str:
    """An interpreter with options, or with modules of its own."""
    script = folder / "python"
    more = "" if path is None else f"PYTHONPATH={path}:$PYTHONPATH "
    script.write_text(f'#!/bin/sh\n{more}exec {sys.executable} {" ".join(options)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_a_build_whose_connection_broke_off_goes_on_and_its_timings_are_the_device_s(
    recipe: Path,
    device: Any,  # noqa: ANN401 - the fixture's class
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    cut: list[bool] = []

    def hang_up(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "latency" and not cut:
            cut.append(device.cut())

    with pytest.raises(DeviceError, match="the connection broke off"):
        built(recipe, Device.parse(device.address, device.ssh_config), hang_up)
    assert cut == [True]
    assert not list(recipe.glob("dist/*"))

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEFT_SSH_CONFIG", str(device.ssh_config))
    named = CliRunner().invoke(app, ["devices", "add", "board", device.address])
    assert named.exit_code == 0, named.output
    done = CliRunner().invoke(app, ["build", str(recipe), "--device", "board", "--json"])
    answer = json.loads(done.stdout)
    assert answer["status"] in {"passed", "failed", "inconclusive"}, done.output  # the latency gate may decide anything
    assert {stage["name"] for stage in answer["stages"] if not stage["reused"]} == {"latency"}

    planned = CliRunner().invoke(app, ["plan", str(recipe), "--device", "board", "--json"])
    rows = json.loads(planned.stdout)["stages"]
    assert {row["stage"] for row in rows if row["will_run"]} == {"latency", "bundle"}
    here = json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).stdout)["stages"]
    assert "choose" in {row["stage"] for row in here if row["will_run"]}  # it was timed there, not here

    record = json.loads((Path(answer["bundle"]) / "report.json").read_text())
    manifest = json.loads((Path(answer["bundle"]) / "manifest.json").read_text())
    assert record["machine"]["device"] == manifest["run"]["machine"]["device"] == device.address
    assert record["machine"]["executable"] == sys.executable
    assert record["latency"]["rounds"] >= 3
    assert set(record["choice"]["latency"]) == {"fp32", "int8"}
    assert record["device"]["check"]["content_digest"] == manifest["content_digest"]
    assert record["device"]["built_on"]["cpu"] == record["machine"]["cpu"]
    page = (Path(answer["bundle"]) / "report.html").read_text()
    assert f"Measured on {device.address} only." in page
    assert f"The bundle on {device.address}: " in page
    assert answer["device"] == record["device"]
    key = Store(recipe / ".edgeft").last("choose")
    assert key is not None
    assert key["device"]["runtime"] == {
        "runtime": "onnxruntime",
        "version": record["machine"]["libraries"]["onnxruntime"],
    }


def test_a_device_that_decides_otherwise_ends_the_build_with_8(
    recipe: Path,
    device: Any,  # noqa: ANN401 - the fixture's class
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    address = Device.parse(device.start + python_there(tmp_path, path=tmp_path), device.ssh_config)
    with pytest.raises(IntegrityError, match=r"ssh://.*golden vectors: row \d+ scores") as caught:
        built(recipe, address, ignore, latency=False, out=tmp_path / "out")
    assert caught.value.exit_code == 8
    assert not (tmp_path / "out").exists()
    assert not list(recipe.glob(".edgeft/runs/*/bundle-*"))


def test_a_device_that_cannot_measure_is_refused_before_anything_runs(
    recipe: Path,
    device: Any,  # noqa: ANN401 - the fixture's class
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    heard: list[Event] = []
    bare = Device.parse(device.start + python_there(tmp_path, "-S"), device.ssh_config)
    with pytest.raises(DeviceError, match=r"there lacks numpy>=1\.26 \(missing\), onnxruntime>=1\.23 \(missing\)"):
        built(recipe, bare, heard.append, "finetune.epochs=2")
    gone = Device.parse(f"ssh://127.0.0.1:{free_port()}", device.ssh_config)
    with pytest.raises(DeviceError, match="no connection"):
        built(recipe, gone, heard.append, "finetune.epochs=2")
    with pytest.raises(UsageError, match="compress times parts of a graph on this machine alone"):
        built(recipe, gone, heard.append, "compress.search=true")
    assert not [event for event in heard if isinstance(event, StageStarted)]
