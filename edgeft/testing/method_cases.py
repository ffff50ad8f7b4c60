"""The exam that every finetune method must pass, ours and anyone's: `for case in CASES: case.check(method, folder)`.

Every question is asked on images and on texts (`edgeft.testing.toys`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file

from edgeft import catalog
from edgeft.core.digest import canonical_json, sha256_tree
from edgeft.core.errors import EdgeftError, UsageError
from edgeft.core.events import Event, EventSink, Progress, ignore
from edgeft.core.stage import Context, Json, Method, StageResult
from edgeft.data.dataset import Dataset
from edgeft.models.checkpoint import load
from edgeft.models.predict import logits
from edgeft.models.sources import create_with_notes
from edgeft.testing.toys import CLASSES, CONVOLUTIONS, PATCHES, PER_CLASS, TEXTS, Toy

_FILES: Final = {"history.json", "model.json", "model.safetensors"}
_TOLD: Final = {
    *("trainable_parameters", "parameters", "trainable_share"),
    *("seconds_per_epoch", "peak_memory_bytes", "peak_gpu_memory_bytes"),
}
_ADAPTER_FILES: Final = {"history.json", "adapter.json", "adapter.safetensors", "model.json"}
_HUGE_RATE: Final = 1e30
_SMALL: Final[Mapping[str, Json]] = {"epochs": 2, "batch_size": 12}
_LEARNABLE: Final = 0.9
_HELD_OUT: Final = 0.75
"""36 training rows and random weights below: more is luck. One in three would be chance."""


class ExamError(EdgeftError):
    """The method does not keep its contract."""


@dataclass(frozen=True, slots=True)
class MethodCase:
    """One question of the exam: `check` raises `ExamError` where the method, given an empty folder, fails it."""

    name: str
    check: Callable[[Method, Path], None]


class _Killed(BaseException):
    """Stands for a kill in the middle of a run."""


def run(
    method: Method,
    toy: Toy,
    folder: Path,
    data: Path,
    settings: Mapping[str, Json],
    *,
    seed: int = 0,
    emit: EventSink = ignore,
) -> StageResult:
    """Run `method` on `data` with output and workspace below `folder`; `settings` go on top of two small epochs."""
    model, inputs = toy.model(folder)
    described = catalog.resolve(method.config)
    small = {name: value for name, value in _SMALL.items() if name in described.model_fields}
    config = described(**({"model": model} | small | dict(settings)))
    out, workspace = folder / "out", folder / "workspace"
    out.mkdir(parents=True, exist_ok=True)
    workspace.mkdir(parents=True, exist_ok=True)
    context = Context(out, workspace, seed=seed, threads=1, emit=emit)
    result = catalog.resolve(method.run)(context, {"data": data, **inputs}, config)
    _require(isinstance(result, StageResult), f"run returned {type(result).__name__}, not StageResult")
    return result  # type: ignore[no-any-return] # checked in the line above


def plain(method: Method, toy: Toy, folder: Path, data: Path, result: StageResult) -> Path:
    """Return the checkpoint folder of what `method` made: its own, or where it left adapters, with them merged."""
    merge = next((each for each in catalog.methods("merge") if each.name == method.name), None)
    if merge is None:
        return result.folder
    model, inputs = toy.model(folder)
    out = folder / "merged"
    out.mkdir(exist_ok=True)
    context = Context(out, folder / "workspace", seed=0, threads=1)
    given = {"data": data, "finetune": result.folder, **inputs}
    made: StageResult = catalog.resolve(merge.run)(context, given, catalog.resolve(merge.config)(model=model))
    return made.folder


def _refuses_unknown_settings(toy: Toy, method: Method, folder: Path) -> None:
    config = catalog.resolve(method.config)
    try:
        config(model=toy.model(folder)[0], no_such_setting=1)
    except ValueError:
        return
    raise ExamError("the config accepts a key that it does not know")


def _writes_a_checkpoint(toy: Toy, method: Method, folder: Path) -> None:
    data = toy.write(folder / "data")
    result = run(method, toy, folder, data, {})
    files = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    merged = any(each.name == method.name for each in catalog.methods("merge"))
    expected = _ADAPTER_FILES if merged else _FILES
    _require(files == expected, f"the folder holds {sorted(files)}, expected {sorted(expected)}")
    checkpoint = plain(method, toy, folder, data, result)
    module, meta = load(checkpoint)
    _require(meta.classes == CLASSES, f"classes {meta.classes}, expected the data's order {CLASSES}")
    _require(not module.training, "the loaded module is not in eval mode")
    dataset = Dataset.open(data)
    scores = logits(checkpoint, dataset.part(np.arange(len(dataset))), 1)
    _require(scores.shape == (len(CLASSES) * PER_CLASS, len(CLASSES)), f"logits of shape {scores.shape}")
    _require(bool(np.isfinite(scores).all()), "logits are not finite")


def _reports_canonical_json(toy: Toy, method: Method, folder: Path) -> None:
    result = run(method, toy, folder, toy.write(folder / "data"), {})
    canonical_json(dict(result.measurements))
    canonical_json(dict(result.timings))
    told = {*result.measurements, *result.timings}
    _require(told >= _TOLD, f"it does not tell {sorted(_TOLD - told)}")
    history = json.loads((result.folder / "history.json").read_text())
    _require(len(history) > 0, "the history is empty")
    for entry in history:
        missing = {"epoch", "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "lr"} - set(entry)
        _require(not missing, f"a history entry lacks {sorted(missing)}")
        _require("seconds" not in entry, "the history holds timings, which belong to StageResult.timings")


def _learns(toy: Toy, method: Method, folder: Path) -> None:
    data = toy.write(folder / "data")
    result = run(method, toy, folder, data, {"epochs": toy.epochs, "lr": 1e-2})
    dataset = Dataset.open(data)
    scores = logits(plain(method, toy, folder, data, result), dataset.part(np.arange(len(dataset))), 1)
    right = scores.argmax(axis=1) == dataset.labels
    held_out = np.concatenate([dataset.indices("val"), dataset.indices("test")])
    for rows, least in ((np.arange(len(dataset)), _LEARNABLE), (held_out, _HELD_OUT)):
        share = float(right[rows].mean())
        _require(share >= least, f"{share:.0%} of {len(rows)} rows are told apart, expected {least:.0%}")


def _trains_what_it_claims(toy: Toy, method: Method, folder: Path) -> None:
    """As many parameters as are claimed must differ from the base; all others must be the base's, bit for bit."""
    data = toy.write(folder / "data")
    result = run(method, toy, folder, data, {"epochs": 3})
    model, inputs = toy.model(folder)
    seed = Context(folder, folder, seed=0, threads=1).seed_for("head")
    base = create_with_notes(model, inputs.get("weights"), CLASSES, seed).module
    before = {name: parameter.detach() for name, parameter in base.named_parameters()}
    if (result.folder / "adapter.safetensors").is_file():
        trained = load_file(result.folder / "adapter.safetensors")
        head = [name for name in trained if name in before]
        statistics = {name for name in base.state_dict() if name not in before}
        moved = sum(tensor.numel() for name, tensor in trained.items() if name not in statistics)
        _require(all(not torch.equal(trained[name], before[name]) for name in head), "the head did not move")
        after = load(plain(method, toy, folder, data, result))[0].state_dict()
        layers = json.loads((result.folder / "adapter.json").read_text())["layers"]
        free = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | set(head)
    else:
        after = load(result.folder)[0].state_dict()
        free = {name for name in before if not torch.equal(before[name], after[name])}
        moved = sum(before[name].numel() for name in free)
    strange = [name for name in before if name not in free and not torch.equal(before[name], after[name])]
    _require(not strange, f"{len(strange)} parameters moved that are not trained, first {strange[:1]}")
    claimed = result.measurements["trainable_parameters"]
    _require(moved == claimed, f"{claimed} parameters are claimed to be trained, {moved} moved")


def _same_seed_same_bytes(toy: Toy, method: Method, folder: Path) -> None:
    data = toy.write(folder / "data")
    first, second, other = (
        sha256_tree(run(method, toy, folder / name, data, toy.augment, seed=seed).folder)
        for name, seed in (("first", 3), ("second", 3), ("other", 4))
    )
    _require(first == second, "two runs with one seed differ")
    _require(first != other, "the seed changes nothing")


def _never_reads_the_test_split(toy: Toy, method: Method, folder: Path) -> None:
    found = []
    for name, other in (("plain", False), ("changed", True)):
        data = toy.write(folder / name / "data", other_test_split=other)
        found.append(sha256_tree(run(method, toy, folder / name, data, {}).folder))
    plain, changed = found
    _require(plain == changed, "other test rows give another checkpoint")


def _resumes_with_the_same_bytes(toy: Toy, method: Method, folder: Path) -> None:
    data = toy.write(folder / "data")
    settings: dict[str, Json] = {"epochs": 3, **toy.augment, "checkpoint_seconds": 0}
    events: list[Event] = []
    whole = sha256_tree(run(method, toy, folder / "whole", data, settings, emit=events.append).folder)
    steps = sum(isinstance(event, Progress) for event in events)
    _require(steps > 1, "no progress is told")
    for stop in sorted({1, steps // 2, steps - 1}):
        killed = folder / f"killed_{stop}"
        try:
            run(method, toy, killed, data, settings, emit=_kill_after(stop))
        except _Killed:
            pass
        else:
            raise ExamError("a run told less progress than the same run before it")
        again = sha256_tree(run(method, toy, killed, data, settings).folder)
        _require(again == whole, f"a run killed at progress {stop} of {steps} resumes to other bytes")


def _kill_after(count: int) -> EventSink:
    seen = 0

    def emit(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Progress)
        if seen >= count:
            raise _Killed

    return emit


def _leaves_the_process_as_it_was(toy: Toy, method: Method, folder: Path) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # type: ignore[index] # noqa: NPY002 - the global one is meant
        )

    before = state()
    run(method, toy, folder, toy.write(folder / "data"), {})
    _require(state() == before, "threads, determinism, gradient mode, dtype or a global generator was changed")


def _names_the_batch_that_diverges(toy: Toy, method: Method, folder: Path) -> None:
    settings: dict[str, Json] = {"lr": _HUGE_RATE, "warmup": 0.0, "schedule": "constant", "epochs": 6}
    try:
        run(method, toy, folder, toy.write(folder / "data"), settings)
    except EdgeftError as error:
        _require("batch" in error.message and toy.row in error.message, f"does not name the batch: {error.message}")
        _require(not any((folder / "out").iterdir()), "a diverged run left files in its output folder")
        return
    raise ExamError(f"a learning rate of {_HUGE_RATE} gave a checkpoint")


_QUESTIONS: Final[Mapping[str, Callable[[Toy, Method, Path], None]]] = {
    "refuses unknown settings": _refuses_unknown_settings,
    "writes a checkpoint": _writes_a_checkpoint,
    "reports canonical JSON": _reports_canonical_json,
    "learns": _learns,
    "trains what it claims": _trains_what_it_claims,
    "same seed, same bytes": _same_seed_same_bytes,
    "never reads the test split": _never_reads_the_test_split,
    "resumes with the same bytes": _resumes_with_the_same_bytes,
    "leaves the process as it was": _leaves_the_process_as_it_was,
    "names the batch that diverges": _names_the_batch_that_diverges,
}


def _ask(check: Callable[[Toy, Method, Path], None], toys: Sequence[Toy], method: Method, folder: Path) -> None:
    """Ask on the first toy whose family the method works on; where there is none, it must refuse them."""
    works_on = getattr(catalog.resolve(method.config), "works_on", {toy.family for toy in toys})
    for toy in toys:
        if toy.family in works_on:
            check(toy, method, folder)
            return
    try:
        run(method, toys[0], folder, toys[0].write(folder / "data"), {})
    except UsageError as error:
        _require(method.name in error.message, f"does not say which method cannot be used: {error.message}")
        return
    raise ExamError(f"works on {', '.join(sorted(works_on))}, and does not refuse {toys[0].family}")


CASES: Final = tuple(
    MethodCase(f"{name}{toys[0].suffix}", partial(_ask, check, toys))
    for toys in ((CONVOLUTIONS, PATCHES), (TEXTS,))
    for name, check in _QUESTIONS.items()
)
"""Every question, in the order of what breaks first."""


def _require(truth: bool, message: str) -> None:  # noqa: FBT001 - the condition itself
    if not truth:
        raise ExamError(message)
