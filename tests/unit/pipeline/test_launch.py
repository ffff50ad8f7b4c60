"""Several training processes: the result of one, its errors, its resume, and refusals where it would be another."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from edgeft import catalog
from edgeft.core.errors import EdgeftError, UsageError
from edgeft.core.events import Event, EventSink, Progress, ignore
from edgeft.core.stage import Context, Json, StageResult
from edgeft.pipeline.launch import launched
from edgeft.testing.toys import Images, Texts, Toy

IMAGES, TEXTS = Images(), Texts()
PLAIN: dict[str, Json] = {"optimizer": "sgd", "lr": 0.01, "epochs": 2, "batch_norm": "frozen", "device": "cpu"}
"""SGD, because Adam divides by rounding noise."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data of both toys, and a text encoder without dropout: its draws depend on who draws."""
    folder = tmp_path_factory.mktemp("toys")
    TEXTS.model(folder)
    config = folder / "encoder" / "config.json"
    values = json.loads(config.read_text())
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(values))
    return {"images": IMAGES.write(folder / "images"), "texts": TEXTS.write(folder / "texts"), "model": folder}


def train(
    name: str,
    toy: Toy,
    places: dict[str, Path],
    folder: Path,
    processes: int,
    emit: EventSink = ignore,
    **settings: Any,  # noqa: ANN401 - of the method's own config
) -> StageResult:
    """Train in `processes` processes with output and workspace below `folder`; 0 is this one."""
    method = catalog.find("finetune", name)
    model, inputs = toy.model(places["model"])
    values = {**PLAIN, **settings, "model": model, "processes": max(processes, 1)}
    config = catalog.resolve(method.config)(**values)
    for each in ("out", "workspace"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    context = Context(folder / "out", folder / "workspace", seed=0, threads=2, emit=emit)
    given = {"data": places["texts" if toy is TEXTS else "images"], **inputs}
    if not processes:
        return catalog.resolve(method.run)(context, given, config)  # type: ignore[no-any-return] # a string's
    return launched(method, context, given, config, processes)


def weights(result: StageResult) -> dict[str, torch.Tensor]:
    return load_file(next(result.folder.glob("*.safetensors")))


@pytest.mark.parametrize(
    ("name", "toy", "settings"),
    [
        ("full", IMAGES, {"batch_size": 7, "accumulate": 2, "class_weights": {"blue": 3.0, "green": 1.0, "red": 0.5}}),
        ("full", TEXTS, {"batch_size": 7, "ema": 0.9}),
        ("lora", TEXTS, {"batch_size": 12, "gradient_checkpointing": True}),
    ],
)
def test_two_processes_train_what_one_does(
    name: str, toy: Toy, settings: dict[str, Json], places: dict[str, Path], tmp_path: Path
) -> None:
    told: list[Event] = []
    one = train(name, toy, places, tmp_path / "one", 0, **settings)
    two = train(name, toy, places, tmp_path / "two", 2, told.append, **settings)
    alone, together = weights(one), weights(two)
    assert alone.keys() == together.keys()
    for tensor_name, tensor in alone.items():
        torch.testing.assert_close(together[tensor_name], tensor, atol=1e-6, rtol=1e-4)
    first, second = (json.loads((each.folder / "history.json").read_text()) for each in (one, two))
    for mine, theirs in zip(first, second, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5)
    assert any(isinstance(event, Progress) and event.done == event.total for event in told)
    assert two.measurements["trainable_parameters"] == one.measurements["trainable_parameters"]


def test_a_killed_run_of_two_ends_with_the_bits_of_an_uninterrupted_one(
    places: dict[str, Path], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"batch_size": 12, "epochs": 40, "checkpoint_seconds": 0.0}
    whole = train("full", TEXTS, places, tmp_path / "whole", 2, **settings)
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_launch as here
places = {{"texts": Path({str(places["texts"])!r}), "model": Path({str(places["model"])!r})}}
here.train("full", here.TEXTS, places, Path({str(tmp_path / "cut")!r}), 2, **{settings!r})
"""
    running = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    state = tmp_path / "cut" / "workspace" / "state.safetensors"
    while not state.is_file():
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)  # the launcher and its processes are left alone, and must end by themselves
    running.wait()
    while any(str(tmp_path / "cut") in line for line in _commands()):
        time.sleep(0.1)
    told: list[Event] = []
    resumed = train("full", TEXTS, places, tmp_path / "cut", 2, told.append, **settings)
    first = next(event for event in told if isinstance(event, Progress))
    assert first.done > 1
    assert weights(resumed).keys() == weights(whole).keys()
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name


def _commands() -> list[str]:
    return [
        (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and (path / "cmdline").is_file()
    ]


def test_an_error_of_a_process_is_the_error(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"became (nan|inf)") as caught:
        train("full", TEXTS, places, tmp_path, 2, batch_size=12, lr=1e30, clip_norm=None, epochs=20)
    assert "finetune.lr" in str(caught.value.hint)


def test_a_process_that_dies_is_told_with_its_last_words(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_JIT", "0")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torchvision.py").write_text("raise OSError('the library is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(EdgeftError, match="2 processes: one ended early") as caught:
        train("full", IMAGES, places, tmp_path / "run", 2)
    assert "finetune.processes=1" in str(caught.value.hint)


def test_refusals(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"finetune\.processes: .* would see one process's part"):
        train("full", IMAGES, places, tmp_path / "statistics", 2, batch_norm="train")
    with pytest.raises(UsageError, match=r"finetune\.processes: 2 cannot share a batch of 1"):
        train("full", TEXTS, places, tmp_path / "small", 2, batch_size=1)
    for name, settings in (("frozen", {}), ("gradual", {}), ("hybrid", {})):
        config = catalog.resolve(catalog.find("finetune", name).config)
        with pytest.raises(ValidationError, match="runs in one"):
            config(model=IMAGES.model(tmp_path)[0], processes=2, **settings)
    hybrid = catalog.resolve(catalog.find("finetune", "hybrid").config)
    with pytest.raises(ValidationError, match="step 1: processes"):
        hybrid(model=IMAGES.model(tmp_path)[0], steps=({"method": "full", "processes": 2},))
