"""Each option of the loop does what its name says, seen from outside: in the history, the checkpoint or the notes."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgeft import catalog
from edgeft.core.digest import sha256_tree
from edgeft.core.errors import UsageError
from edgeft.core.events import Event, Progress
from edgeft.core.stage import Json, Method, StageResult
from edgeft.data.dataset import Dataset
from edgeft.finetune import sampling
from edgeft.finetune.config import FrozenConfig, FullConfig
from edgeft.finetune.environment import training_process
from edgeft.finetune.recompute import Recomputed
from edgeft.models.checkpoint import load
from edgeft.models.sources import create
from edgeft.models.stages import chain, depth_groups
from edgeft.testing import method_cases
from edgeft.testing.toys import Images, Texts

FULL, FROZEN, GRADUAL = (catalog.find("finetune", name) for name in ("full", "frozen", "gradual"))
MODEL = {"base": "timm/test_resnet", "input": {"height": 32, "width": 32, "resize": "squash"}}


def run(method: Method, *args: Any, **kwargs: Any) -> StageResult:  # noqa: ANN401 - as the exam's
    return method_cases.run(method, Images(), *args, **kwargs)


def history(result: StageResult) -> list[dict[str, float]]:
    return json.loads((result.folder / "history.json").read_text())  # type: ignore[no-any-return] # JSON


def weights(result: StageResult) -> dict[str, torch.Tensor]:
    return load(result.folder)[0].state_dict()


def kept(method: Method, folder: Path, data: Path, settings: dict[str, Json]) -> dict[str, torch.Tensor]:
    """Return the weights of the whole model, where the method leaves only what it trained."""
    return ran(method, folder, data, settings)[1]


def ran(
    method: Method, folder: Path, data: Path, settings: dict[str, Json]
) -> tuple[StageResult, dict[str, torch.Tensor]]:
    """Return what a method says, and the weights of the whole model."""
    result = run(method, folder, data, settings)
    return result, load(method_cases.plain(method, Images(), folder, data, result))[0].state_dict()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Images().write(tmp_path_factory.mktemp("data"))


def test_accumulated_batches_are_one_big_batch(tmp_path: Path, data: Path) -> None:
    # BatchNorm sees its batch, so its statistics are frozen here; SGD, because Adam divides by rounding noise
    common: dict[str, Json] = {"batch_norm": "frozen", "optimizer": "sgd", "lr": 0.01, "epochs": 1}
    big = weights(run(FULL, tmp_path / "big", data, {**common, "batch_size": 36}))
    small = weights(run(FULL, tmp_path / "small", data, {**common, "batch_size": 12, "accumulate": 3}))
    for name, tensor in big.items():
        torch.testing.assert_close(small[name], tensor, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["full", "first_n_frozen", "lora"])
def test_a_batch_of_texts_in_parts_is_the_whole_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, method = Texts(), catalog.find("finetune", name)
    rows = toy.write(tmp_path / "data")
    common: dict[str, Json] = {"optimizer": "sgd", "lr": 0.05, "epochs": 2, "class_weights": "balanced"}
    cuts: list[int] = []
    found = []
    for tokens in (0, 1 << 20):  # a part more costs nothing, or more than anything
        folder = tmp_path / str(tokens)
        toy.model(folder)
        config = folder / "encoder" / "config.json"
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config.write_text(json.dumps(json.loads(config.read_text()) | still))
        monkeypatch.setattr(sampling, "_PART_TOKENS", tokens)
        plain = sampling.alike

        def alike(rows: sampling.Rows, lengths: sampling.Rows) -> list[sampling.Rows]:
            parts = plain(rows, lengths)  # noqa: B023 - used within this turn
            cuts.append(len(parts))
            return parts

        monkeypatch.setattr("edgeft.finetune.feeds.alike", alike)
        result = method_cases.run(method, toy, folder, rows, common)
        found.append(load(method_cases.plain(method, toy, folder, rows, result))[0].state_dict())
        monkeypatch.undo()
    assert max(cuts) > min(cuts) == 1
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, atol=1e-5, rtol=1e-4)


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path, data: Path) -> None:
    still = weights(run(FULL, tmp_path / "kept", data, {"batch_norm": "frozen"}))
    moved = weights(run(FULL, tmp_path / "moved", data, {}))
    name = next(name for name in still if name.endswith("running_mean"))
    assert not still[name].any()
    assert moved[name].any()


def test_frozen_trains_the_head_alone(tmp_path: Path, data: Path) -> None:
    short, long = (kept(FROZEN, tmp_path / str(n), data, {"epochs": n}) for n in (1, 4))
    changed = {name for name in short if not torch.equal(short[name], long[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_gradual_never_touches_its_frozen_groups(tmp_path: Path, data: Path) -> None:
    settings: dict[str, Json] = {"frozen_groups": 3, "groups_per_release": 1, "lr": 0.01}
    short, long = (kept(GRADUAL, tmp_path / str(n), data, {**settings, "epochs": n}) for n in (1, 6))
    changed = {name.split(".")[0] for name in short if not torch.equal(short[name], long[name])}
    assert changed == {"layer3", "layer4", "fc"}


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_gradual_caches_what_it_would_compute_anew(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    settings: dict[str, Json] = {"epochs": 4, "groups_per_release": 1, "frozen_groups": 2}
    cached, stored = ran(GRADUAL, tmp_path / "cached", data, settings)
    monkeypatch.setattr("edgeft.finetune.gradual.base_boundary", lambda *_: None)
    anew, computed = ran(GRADUAL, tmp_path / "anew", data, {**settings, "engine": engine})
    assert any("cached up to layer1" in note for note in cached.notes)
    assert any("not cached" in note and "finetune.cache_limit_mb is 4,096" in note for note in anew.notes)
    for name, tensor in computed.items():
        # float32 features from batches of another size, amplified by four epochs of Adam
        torch.testing.assert_close(stored[name], tensor, atol=1e-3, rtol=1e-2)


def test_gradual_that_freezes_nothing_says_so(tmp_path: Path, data: Path) -> None:
    whole = run(GRADUAL, tmp_path, data, {"epochs": 1, "head_epochs": 0, "groups_per_release": 9})
    assert any("nothing is frozen" in note for note in whole.notes)


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path, data: Path) -> None:
    # a rate that soon overshoots: validation gets worse while the schedule is constant
    settings: dict[str, Json] = {"epochs": 30, "early_stop": 2, "lr": 0.05, "schedule": "constant", "optimizer": "sgd"}
    result = run(FULL, tmp_path, data, settings)
    losses = [entry["val_loss"] for entry in history(result)]
    best = int(np.argmin(losses))
    assert result.measurements["best_epoch"] == best
    assert len(losses) == best + 3
    assert result.measurements["val_loss"] == losses[best]
    assert any(f"stopped {30 - len(losses)} epochs early" in note for note in result.notes)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_the_metric_picks_the_best_epoch(tmp_path: Path, data: Path, metric: str) -> None:
    result = run(FULL, tmp_path, data, {"epochs": 5, "metric": metric})
    values = [entry[f"val_{metric}"] for entry in history(result)]
    assert result.measurements["best_epoch"] == int(np.argmax(values))


def test_views_are_computed_once_each(tmp_path: Path, data: Path) -> None:
    result = run(FROZEN, tmp_path, data, {"epochs": 7, "views": 3, "augment": "inspection"})
    assert any(f"{3 * 36 + 12} forward passes" in note for note in result.notes)
    without = run(FROZEN, tmp_path / "plain", data, {"epochs": 7, "views": 3})
    assert any(f"{36 + 12} forward passes" in note for note in without.notes)


def test_a_resumed_run_repeats_no_step(tmp_path: Path, data: Path) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 5:
            raise KeyboardInterrupt

    settings: dict[str, Json] = {"epochs": 3, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        run(FULL, tmp_path, data, settings, emit=kill)
    events: list[Event] = []
    run(FULL, tmp_path, data, settings, emit=events.append)
    assert [event.done for event in events if isinstance(event, Progress)] == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("method", [FULL, GRADUAL], ids=["full", "gradual"])
def test_averages_survive_a_kill(tmp_path: Path, data: Path, method: Method) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "finetune" and event.done == 7:
            raise KeyboardInterrupt

    settings: dict[str, Json] = {"epochs": 4, "checkpoint_seconds": 0, "ema": 0.9}
    whole = kept(method, tmp_path / "whole", data, settings)
    with pytest.raises(KeyboardInterrupt):
        run(method, tmp_path / "killed", data, settings, emit=kill)
    resumed = kept(method, tmp_path / "killed", data, settings)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_averages_leave_alone_what_is_frozen(tmp_path: Path, data: Path) -> None:
    plain, averaged = (kept(FROZEN, tmp_path / str(ema), data, {"ema": ema}) for ema in (None, 0.9))
    moved = {name for name, tensor in plain.items() if not torch.equal(averaged[name], tensor)}
    assert moved == {"fc.weight", "fc.bias"}


def test_state_of_other_settings_is_not_resumed(tmp_path: Path, data: Path) -> None:
    run(FULL, tmp_path / "a", data, {"checkpoint_seconds": 0, "lr": 1e-2})
    run(FULL, tmp_path / "b", data, {"checkpoint_seconds": 0, "lr": 1e-3})
    state = tmp_path / "a/workspace/state.safetensors"
    (tmp_path / "c/workspace").mkdir(parents=True)
    (tmp_path / "c/workspace/state.safetensors").write_bytes(state.read_bytes())
    run(FULL, tmp_path / "c", data, {"checkpoint_seconds": 0, "lr": 1e-3})
    assert (tmp_path / "c/out/model.safetensors").read_bytes() == (tmp_path / "b/out/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "focal", "class_weights": "balanced"},
        {"class_weights": {"red": 2.0, "green": 1.0, "blue": 0.5}, "label_smoothing": 0.1},
        {"sampling": "balanced", "optimizer": "sgd", "schedule": "step"},
        {"schedule": "one_cycle", "clip_norm": None, "batch_size": 5, "accumulate": 2},
        {"precision": "bf16", "schedule": "constant"},
        {"ema": 0.9},
        {"mixup": 0.4, "batch_norm": "frozen"},
        {"cutmix": 1.0, "mixup": 0.2, "accumulate": 2},
        {"model": {**MODEL, "dropout": 0.5}},
    ],
    ids=["focal", "weights", "balanced", "one_cycle", "bf16", "ema", "mixup", "both", "dropout"],
)
def test_options_change_the_result_and_stay_finite(tmp_path: Path, data: Path, settings: dict[str, Json]) -> None:
    plain, changed = run(FULL, tmp_path / "a", data, {}), run(FULL, tmp_path / "b", data, settings)
    assert all(np.isfinite(value) for entry in history(changed) for value in entry.values())
    assert not torch.equal(weights(plain)["fc.weight"], weights(changed)["fc.weight"])


def test_stored_features_cannot_be_mixed() -> None:
    with pytest.raises(ValidationError, match="mixup and cutmix need fresh images"):
        FrozenConfig(model=MODEL, mixup=0.2)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_texts_cannot_be_mixed(tmp_path: Path, name: str) -> None:
    texts = Texts()
    folder = texts.write(tmp_path / "data")
    with pytest.raises(UsageError, match=f"finetune.{name}: changes images"):
        method_cases.run(FULL, texts, tmp_path, folder, {name: 0.2})


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(ValidationError, match="fp16 needs a GPU"):
        FullConfig(model=MODEL, precision="fp16", device="cpu")


def test_process_state_comes_back_after_an_error() -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.initial_seed())

    def fail_inside() -> None:
        with training_process(1, 1):
            assert torch.get_num_threads() == 1
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.initial_seed()) == before


@pytest.mark.parametrize("toy", [Images(), Texts()], ids=["images", "texts"])
@pytest.mark.parametrize("name", ["full", "lora", "gradual"])
def test_gradient_checkpointing_gives_the_same_bits(name: str, toy: Images | Texts, tmp_path: Path) -> None:
    """Dropout draws the same numbers the second time, and the faster kernels compute there, too."""
    method, rows = catalog.find("finetune", name), toy.write(tmp_path / "data")
    common: dict[str, Json] = {"batch_norm": "frozen", "epochs": 3, **toy.augment}
    plain, again = (
        sha256_tree(
            method_cases.run(method, toy, tmp_path / str(flag), rows, {**common, "gradient_checkpointing": flag}).folder
        )
        for flag in (False, True)
    )
    assert plain == again


def test_gradient_checkpointing_keeps_less(tmp_path: Path) -> None:
    toy = Texts()
    model, inputs = toy.model(tmp_path)
    module = create(model, inputs["weights"], ("a", "b", "c"), 0).train()
    tokens = {name: torch.ones(4, 9, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    kept = []
    for wrap in (lambda group: group, lambda group: Recomputed(group, nullcontext)):
        layers = chain([(name, wrap(group)) for name, group in depth_groups(module)])
        total = [0]

        def count(tensor: torch.Tensor, total: list[int] = total) -> torch.Tensor:
            total[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            layers(tokens)
        kept.append(total[0])
    assert kept[1] < kept[0] / 3


def test_batch_norm_would_see_each_batch_twice(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="would see each batch twice"):
        run(FULL, tmp_path, data, {"gradient_checkpointing": True})


@pytest.mark.parametrize("name", ["full", "gradual"])
def test_texts_are_augmented_anew_in_every_epoch(name: str, tmp_path: Path) -> None:
    toy, method = Texts(), catalog.find("finetune", name)
    rows = toy.write(tmp_path / "data")
    table = tmp_path / "words.csv"
    table.write_text("the,under\nsky,house\n")
    changed: dict[str, Json] = {"augment_text": {"swap": 0.3, "delete": 0.2, "synonyms": 0.5, "table": str(table)}}
    plain, first, second, other = (
        sha256_tree(method_cases.run(method, toy, tmp_path / place, rows, {"epochs": 3, **settings}, seed=seed).folder)
        for place, settings, seed in (("a", {}, 0), ("b", changed, 0), ("c", changed, 0), ("d", changed, 1))
    )
    assert first == second
    assert len({plain, first, other}) == 3


def test_where_texts_are_not_fresh_they_are_not_augmented(tmp_path: Path, data: Path) -> None:
    changed: dict[str, Json] = {"augment_text": {"swap": 0.3}}
    with pytest.raises(UsageError, match="changes texts, and the data are images"):
        run(FULL, tmp_path, data, changed)
    with pytest.raises(ValidationError, match="needs fresh texts"):
        FrozenConfig(model=MODEL, augment_text={"swap": 0.3})


def test_domains_are_mixed_in_every_epoch(tmp_path: Path) -> None:
    """Half of the rows are of a domain with a share of .9: the epoch is as long, and mostly of them."""
    toy, method = Texts(), catalog.find("finetune", "full")
    rows = toy.write(tmp_path / "data")
    head = json.loads((rows / "dataset.json").read_text())
    lines = [json.loads(line) for line in (rows / "rows.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["slices"] = {"domain": ["target", "source"][number % 2]}
    (rows / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = weights(method_cases.run(method, toy, tmp_path / "plain", rows, {}))
    (rows / "dataset.json").write_text(json.dumps({**head, "mix": {"target": 0.9, "source": 0.1}}))
    data = Dataset.open(rows)
    train = data.indices("train")
    drawn = sampling.mixed(train, data.domains()[train], list((data.mix or {}).values()), 0)
    assert len(drawn) == len(train)
    assert float((data.domains()[drawn] == 0).mean()) == pytest.approx(0.9, abs=0.02)
    mixed = weights(method_cases.run(method, toy, tmp_path / "mixed", rows, {}))
    assert any(not torch.equal(mixed[name], tensor) for name, tensor in plain.items())
    with pytest.raises(UsageError, match=r"data\.mix by domain"):
        method_cases.run(method, toy, tmp_path / "both", rows, {"sampling": "balanced"})
