"""A student learns its teacher's answers: the loss by hand, students derived and named, resume, and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeft import catalog
from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import Event, Progress
from edgeft.core.stage import Json
from edgeft.data.dataset import Dataset
from edgeft.distill.config import KnowledgeConfig
from edgeft.distill.encoders import spread
from edgeft.models.checkpoint import load
from edgeft.models.predict import logits
from edgeft.testing import method_cases
from edgeft.testing.taught import Taught
from edgeft.testing.toys import Images, Texts

IMAGES, TEXTS = Images(), Texts()
STUDENTS: dict[str, dict[str, Json]] = {"images": {"base": "timm/test_efficientnet"}, "texts": {"layers": 1}}


@given(st.integers(1, 48), st.data())
def test_kept_layers_are_spread_and_hold_the_last(layers: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, layers))
    found = spread(layers, kept)
    assert len(set(found)) == kept
    assert found == sorted(found)
    assert found[-1] == layers - 1
    assert found[0] >= 0
    gaps = np.diff([-1, *found])
    assert gaps.max() - gaps.min() <= 1


@pytest.fixture(scope="module", params=["images", "texts"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def taught(kind: str, request: pytest.FixtureRequest) -> Taught:
    found: Taught = request.getfixturevalue(kind)
    return found


def test_a_student_learns_its_teacher_alone(taught: Taught, kind: str, tmp_path: Path) -> None:
    augment = {"augment": "inspection", "views": 3} if kind == "images" else {}
    epochs = taught.toy.epochs
    result = taught.distill(tmp_path, STUDENTS[kind], epochs=epochs, lr=1e-2, alpha=1.0, **augment)
    dataset = Dataset.open(taught.data)
    rows = dataset.part(np.arange(len(dataset)))
    said, told = (logits(folder, rows, 1).argmax(1) for folder in (result.folder, taught.teacher))
    assert (said == told).mean() >= 0.9  # no label was seen
    train, val = (len(dataset.indices(split)) for split in ("train", "val"))
    assert result.timings["teacher_rows"] == train * augment.get("views", 1) + val
    assert result.measurements["val_agreement"] == (said == told)[dataset.indices("val")].mean()
    right = (told == dataset.labels)[dataset.indices("val")].mean()
    assert result.measurements["teacher_val_accuracy"] == pytest.approx(right)
    size = sum(each.numel() for each in load(taught.teacher)[0].parameters())
    assert result.measurements["teacher_parameters"] == size
    assert result.measurements["parameters"] == sum(each.numel() for each in load(result.folder)[0].parameters())


def test_a_killed_run_resumes_with_the_same_bytes(taught: Taught, kind: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"epochs": 3, "checkpoint_seconds": 0}
    values |= {"augment": "inspection", "views": 2} if kind == "images" else {}
    events: list[Event] = []
    whole = sha256_tree(taught.distill(tmp_path / "whole", STUDENTS[kind], events.append, **values).folder)
    assert whole == sha256_tree(taught.distill(tmp_path / "again", STUDENTS[kind], **values).folder)
    steps = sum(isinstance(event, Progress) for event in events)
    for stop in (1, steps // 2, steps - 1):
        seen = 0

        def kill(event: Event) -> None:
            nonlocal seen
            seen += isinstance(event, Progress)
            if seen >= stop:  # noqa: B023 - called in this turn of the loop
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            taught.distill(tmp_path / str(stop), STUDENTS[kind], kill, **values)
        assert sha256_tree(taught.distill(tmp_path / str(stop), STUDENTS[kind], **values).folder) == whole


def test_a_derived_student_begins_with_its_teachers_weights(tmp_path: Path) -> None:
    taught = Taught(TEXTS, tmp_path)
    result = taught.distill(tmp_path / "student", {"layers": 1}, lr=1e-30, weight_decay=0.0)
    teacher, student = load(taught.teacher)[0].state_dict(), load(result.folder)[0].state_dict()
    for name, tensor in student.items():
        assert torch.equal(tensor, teacher[name.replace(".layer.0.", ".layer.1.")]), name
    assert len(student) < len(teacher)
    assert any("layers 1 of the teacher's 2" in note for note in result.notes)
    assert load(result.folder)[1].encoder["num_hidden_layers"] == 1  # type: ignore[index] # a text model has one


def test_what_a_reader_must_know_is_told(tmp_path: Path) -> None:
    taught = Taught(IMAGES, tmp_path)
    large = taught.distill(tmp_path / "large", {"base": "timm/resnet18"}, epochs=1)
    assert any("no fewer than its teacher's" in note for note in large.notes)
    many = {f"checkpoint-{number}": taught.teacher for number in range(2, 31)}
    large = taught.distill(tmp_path / "one", {"base": "timm/resnet18"}, inputs=many, teachers=30, epochs=1)
    assert any("no fewer than its teacher's" in note for note in large.notes)
    assert not any("no fewer" in note for note in taught.distill(tmp_path / "s", STUDENTS["images"], epochs=1).notes)
    full = catalog.find("finetune", "full")
    taught.teacher = method_cases.run(full, IMAGES, tmp_path / "bad", taught.data, {"epochs": 1, "lr": 1e-9}).folder
    better = taught.distill(tmp_path / "better", STUDENTS["images"], epochs=12, lr=1e-2, alpha=0.0)
    assert any("the teacher holds it back" in note for note in better.notes)


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    images, texts = Taught(IMAGES, tmp_path / "images"), Taught(TEXTS, tmp_path / "texts")
    with pytest.raises(UsageError, match=r"layers: timm/test_resnet takes images, and has none"):
        images.distill(tmp_path / "a", {"layers": 1})
    with pytest.raises(UsageError, match="the teacher takes texts"):
        texts.distill(tmp_path / "b", {"base": "timm/resnet18"})
    with pytest.raises(UsageError, match=r"distill\.student: base: String should match pattern"):
        images.distill(tmp_path / "f", {"base": "resnet18"})
    with pytest.raises(UsageError, match=r"distill\.student: .*a text encoder needs weights"):
        texts.distill(tmp_path / "g", {"base": "transformers"})
    with pytest.raises(UsageError, match=r"distill\.student\.layers: 2, and the teacher has 2"):
        texts.distill(tmp_path / "c", {"layers": 2})
    with pytest.raises(UsageError, match=r"student\.input: is for images"):
        texts.distill(tmp_path / "e", {"layers": 1, "input": {"height": 8, "width": 8}})
    adapter = catalog.find("finetune", "adapter")
    result = method_cases.run(adapter, TEXTS, tmp_path / "adapter", texts.data, {})
    texts.teacher = method_cases.plain(adapter, TEXTS, tmp_path / "adapter", texts.data, result)
    with pytest.raises(UsageError, match="the teacher holds adapters, prompts or prefixes"):
        texts.distill(tmp_path / "d", {"layers": 1})
    student: dict[str, Any]
    for student, said in (
        ({}, "give layers, hidden"),
        ({"layers": 1, "base": "timm/resnet18"}, r"give either base \(a network"),
        ({"choose": "error", "layers": [0]}, "choose goes with"),
        ({"layers": 1, "weights": "w.pth"}, r"student\.weights goes with student\.base"),
    ):
        with pytest.raises(ValidationError, match=said):
            KnowledgeConfig(model=texts.model, student=student)  # type: ignore[arg-type] # pydantic reads it
    for values, said in (
        ({"mixup": 0.2}, "answers are kept by image"),
        ({"augment_text": {"delete": 0.1}}, "answers are kept by text"),
        ({"processes": 2}, "runs in one"),
        ({"prune_steps": 2}, "prune_steps goes with prune"),
        ({"prune": 0.2, "prune_steps": 2, "baselines": True}, "healed by its teacher"),
        ({"baselines": ["alone"]}, "'without_teacher' or 'from_scratch'"),
        ({"teachers": 2, "relations": 1.0}, "looks inside of one teacher"),
        ({"relations": 1.0, "gradient_checkpointing": True}, "looks inside of the student"),
    ):
        with pytest.raises(ValidationError, match=said):
            KnowledgeConfig(model=texts.model, student={"layers": 1}, **values)  # type: ignore[arg-type] # as above


def test_history_and_measurements_are_what_the_loop_found(taught: Taught, kind: str, tmp_path: Path) -> None:
    result = taught.distill(tmp_path, STUDENTS[kind])
    history = json.loads((result.folder / "history.json").read_text())
    assert len(history) == result.measurements["epochs"] == 2
    assert all(np.isfinite(entry["train_loss"]) for entry in history)


def test_a_teacher_with_adapters_leaves_blocks_out_with_theirs(tmp_path: Path) -> None:
    taught = Taught(IMAGES, tmp_path)
    adapter = catalog.find("finetune", "adapter")
    tuned = method_cases.run(adapter, IMAGES, tmp_path / "adapter", taught.data, {})
    taught.teacher = method_cases.plain(adapter, IMAGES, tmp_path / "adapter", taught.data, tuned)
    result = taught.distill(tmp_path / "student", {"drop_blocks": 1}, epochs=1)
    module, meta = load(result.folder)
    (insert,) = meta.inserts
    assert len(meta.dropped) == 1
    assert meta.dropped[0] not in insert.sites
    (before,) = load(taught.teacher)[1].inserts
    assert set(insert.sites) == {site for site in before.sites if not site.startswith(meta.dropped[0])}
    assert module.get_submodule(next(iter(insert.sites))) is not None


def test_a_text_student_by_name_must_read_what_its_teacher_reads(texts: Taught, tmp_path: Path) -> None:
    own, tokenizer = tmp_path / "own", tmp_path / "tokenizer.json"
    shutil.copytree(texts.inputs["weights"], own)
    for place in (own / "tokenizer.json", tokenizer):
        place.write_text("{}")
    student = {"base": "transformers", "weights": str(own)}
    inputs = {"student": own, "tokenizer": tokenizer}
    assert texts.distill(tmp_path / "a", student, inputs=inputs, epochs=1).measurements["parameters"] > 0
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4}))
    with pytest.raises(UsageError, match="has 4 positions"):
        texts.distill(tmp_path / "b", student, inputs=inputs, epochs=1)
    (own / "tokenizer.json").write_text("{} ")
    with pytest.raises(DataError, match="is not the teacher's tokenizer"):
        texts.distill(tmp_path / "c", student, inputs=inputs, epochs=1)


def test_prompts_are_not_matched_token_by_token(tmp_path: Path) -> None:
    taught = Taught(TEXTS, tmp_path)
    prompt = catalog.find("finetune", "prompt")
    tuned = method_cases.run(prompt, TEXTS, tmp_path / "prompt", taught.data, {})
    taught.teacher = method_cases.plain(prompt, TEXTS, tmp_path / "prompt", taught.data, tuned)
    student = {"base": "transformers", "weights": "own"}
    folder = taught.inputs["weights"]
    (folder / "tokenizer.json").write_text("{}")
    inputs = {"student": folder, "tokenizer": folder / "tokenizer.json"}
    with pytest.raises(UsageError, match=r"distill\.hidden: the teacher's prompts stand among"):
        taught.distill(tmp_path / "a", student, inputs=inputs, epochs=1, hidden=1.0)


def test_an_encoder_learns_gently_unless_told(images: Taught, texts: Taught) -> None:
    def lr(taught: Taught, **values: Json) -> float:
        student = STUDENTS["texts" if taught is texts else "images"]
        return KnowledgeConfig.model_validate({"model": taught.model, "student": student, **values}).lr

    assert (lr(images), lr(texts), lr(texts, lr=0.01)) == (1e-3, 1e-4, 0.01)
