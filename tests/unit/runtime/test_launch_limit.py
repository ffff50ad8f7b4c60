"""How long a timing process may take: as long as it was asked to, and a while more."""

import subprocess
from dataclasses import asdict, replace
from typing import Any

import pytest

from edgeft.core.errors import DeviceError
from edgeft.runtime import launch as module
from edgeft.runtime.launch import launch
from edgeft.runtime.worker import Request, Timing

REQUEST = Request("model.onnx", 1, spinning=False, samples=5, warmup=1, max_seconds=3.0)
TIMING = Timing(1.0, 1.0, [1.0, 2.0], 90, 30, loop_s=0.5, cpu_s=0.25, grown_bytes=4096, energy_j=None)


def test_a_long_soak_is_not_taken_for_a_hung_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def run(command: list[str], *, timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - as subprocess.run
        del options
        given.append(timeout)
        return subprocess.CompletedProcess(command, 0, stdout=module.json.dumps(asdict(TIMING)), stderr="")

    monkeypatch.setattr(module.subprocess, "run", run)
    assert launch(REQUEST) == TIMING
    launch(replace(REQUEST, max_seconds=3600.0))
    assert given[0] >= 60
    assert given[1] >= 3600 + given[0] - REQUEST.max_seconds  # loading and warming up take as long as before


def test_a_hung_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float, **options: Any) -> None:  # noqa: ANN401 - as subprocess.run
        del options
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(DeviceError, match=r"timing model\.onnx took more than \d+ s"):
        launch(REQUEST)
