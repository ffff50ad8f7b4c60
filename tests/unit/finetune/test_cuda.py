"""Training on a GPU: what the CPU trains, in half precision too, resumed with the same bits. Skipped without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeft import catalog
from edgeft.core.errors import UsageError
from edgeft.core.events import Event, Progress
from edgeft.core.stage import StageResult
from edgeft.data.dataset import Dataset
from edgeft.models.predict import logits
from edgeft.pipeline.launch import launched
from edgeft.testing import method_cases
from edgeft.testing.toys import Images, Texts, Toy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
FULL, LORA = (catalog.find("finetune", name) for name in ("full", "lora"))
TOYS = {"images": Images(), "texts": Texts()}


def weights(result: StageResult) -> dict[str, torch.Tensor]:
    return load_file(next(result.folder.glob("*.safetensors")))


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_one_epoch_of_sgd_moves_the_weights_as_on_the_cpu(toy: Toy, tmp_path: Path) -> None:
    data = toy.write(tmp_path / "data")
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "epochs": 1, "batch_norm": "frozen", "batch_size": 36}
    moved = {}
    for device in ("cpu", "cuda"):
        place = tmp_path / device
        toy.model(place)
        for config in place.glob("encoder/config.json"):
            config.write_text(config.read_text().replace('_dropout_prob": 0.1', '_dropout_prob": 0.0'))
        moved[device] = method_cases.run(FULL, toy, place, data, {**settings, "device": device})
    assert (moved["cuda"].timings["peak_gpu_memory_bytes"] or 0) > 0  # type: ignore[operator] # a number of bytes
    cpu, cuda = weights(moved["cpu"]), weights(moved["cuda"])
    for name, tensor in cpu.items():
        torch.testing.assert_close(cuda[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_every_precision_learns(toy: Toy, precision: str, tmp_path: Path) -> None:
    data = toy.write(tmp_path / "data")
    settings: dict[str, Any] = {"epochs": toy.epochs, "lr": 1e-2, "device": "cuda", "precision": precision}
    result = method_cases.run(FULL, toy, tmp_path, data, settings)
    dataset = Dataset.open(data)
    scores = logits(result.folder, dataset.part(np.arange(len(dataset))), 1)
    assert (scores.argmax(1) == dataset.labels).mean() >= 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_killed_run_resumes_with_the_same_bits(precision: str, tmp_path: Path) -> None:
    toy = Images()
    data = toy.write(tmp_path / "data")
    settings: dict[str, Any] = {"epochs": 4, "checkpoint_seconds": 0, "device": "cuda", "precision": precision}

    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "finetune" and event.done == 7:
            raise KeyboardInterrupt

    whole = weights(method_cases.run(FULL, toy, tmp_path / "whole", data, settings))
    with pytest.raises(KeyboardInterrupt):
        method_cases.run(FULL, toy, tmp_path / "killed", data, settings, emit=kill)
    resumed = weights(method_cases.run(FULL, toy, tmp_path / "killed", data, settings))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_adapters_trained_there_merge_here(toy: Toy, tmp_path: Path) -> None:
    data = toy.write(tmp_path / "data")
    result = method_cases.run(LORA, toy, tmp_path, data, {"epochs": 3, "lr": 1e-2, "device": "cuda"})
    assert method_cases.plain(LORA, toy, tmp_path, data, result).is_dir()


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    toy, cards = Texts(), torch.cuda.device_count()
    data = toy.write(tmp_path / "data")
    model, inputs = toy.model(tmp_path)
    config = catalog.resolve(FULL.config)(model=model, epochs=1, batch_size=12, processes=cards + 1)
    for each in ("out", "workspace"):
        (tmp_path / each).mkdir()
    context = method_cases.Context(tmp_path / "out", tmp_path / "workspace", seed=0, threads=1)
    with pytest.raises(UsageError, match=rf"finetune\.processes is {cards + 1} and torch sees {cards} GPU"):
        launched(FULL, context, {"data": data, **inputs}, config, cards + 1)
