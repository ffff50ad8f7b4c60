"""Losses that look inside of both networks: every one moves what it is about, resumes, and leaves nothing behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm import create_model
from torchvision.models import get_model as create_torchvision

from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import Event, Progress, Step
from edgeft.core.stage import Context
from edgeft.data.dataset import Dataset
from edgeft.distill import knowledge
from edgeft.distill.config import StudentConfig
from edgeft.distill.encoders import spread
from edgeft.distill.lesson import _mapped
from edgeft.distill.students import create_student, reset_
from edgeft.distill.taps import VECTOR, Spot, maps, vector, watching
from edgeft.distill.teacher import LOGITS, Ensemble, Matched, Teacher, Views
from edgeft.finetune.config import TrainConfig
from edgeft.finetune.loop import Guidance
from edgeft.finetune.session import session
from edgeft.models.checkpoint import load
from edgeft.models.config import ModelConfig
from edgeft.models.predict import logits
from edgeft.models.sources import create_with_notes
from edgeft.models.stages import chain, depth_groups
from edgeft.testing.taught import Taught
from edgeft.testing.toys import Images

IMAGES: dict[str, Any] = {"base": "timm/test_efficientnet"}
TEXTS: dict[str, Any] = {"layers": 1}
NAMES = {
    "images": ("features", "attention", "relations"),
    "texts": ("features", "attention", "relations", "hidden", "self_relations"),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_a_hint_changes_what_is_learned_and_leaves_no_projection(
    kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    taught = request.getfixturevalue(kind)
    student = {"images": IMAGES, "texts": TEXTS}[kind]
    plain = taught.distill(tmp_path / "plain", student, epochs=2, alpha=1.0, lr=1e-3)
    hinted = taught.distill(tmp_path / "hinted", student, epochs=2, alpha=1.0, lr=1e-3, **{name: 1.0})
    own, other = (load(each.folder)[0].state_dict() for each in (plain, hinted))
    assert own.keys() == other.keys()
    assert any(not torch.equal(own[key], other[key]) for key in own)
    first, last = (json.loads((hinted.folder / "history.json").read_text())[at]["train_loss"] for at in (0, -1))
    assert last < first


def test_the_hint_alone_brings_the_student_closer(texts: Taught, tmp_path: Path) -> None:
    """With no weight on logits and labels, hidden states are all there is to learn."""
    found = texts.distill(tmp_path, {"layers": (0,)}, epochs=30, alpha=1.0, temperature=1e-3, hidden=1.0, lr=1e-2)
    history = json.loads((found.folder / "history.json").read_text())
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_killed_run_with_hints_resumes_with_the_same_bytes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    taught = request.getfixturevalue(kind)
    student = {"images": IMAGES, "texts": TEXTS}[kind]
    values: dict[str, Any] = {"epochs": 2, "checkpoint_seconds": 0, **dict.fromkeys(NAMES[kind], 0.5)}
    values |= {"augment": "inspection", "views": 2} if kind == "images" else {}
    events: list[Event] = []
    whole = sha256_tree(taught.distill(tmp_path / "whole", student, events.append, **values).folder)
    stop, seen = sum(isinstance(event, Progress) for event in events) // 2, 0

    def kill(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Progress)
        if seen >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught.distill(tmp_path / "cut", student, kill, **values)
    assert sha256_tree(taught.distill(tmp_path / "cut", student, **values).folder) == whole


def test_a_hint_without_a_place_is_refused(images: Taught, texts: Taught, tmp_path: Path) -> None:
    for name in ("hidden", "self_relations"):
        with pytest.raises(UsageError, match=f"distill.{name}: is for texts"):
            images.distill(tmp_path / name, IMAGES, **{name: 1.0})
    with pytest.raises(UsageError, match="feature maps cannot be matched"):
        images.distill(tmp_path / "vit", {"base": "timm/test_vit"}, features=1.0)
    heads = load(texts.teacher)[0].encoder.config
    with pytest.raises(UsageError, match=r"attention: the student has \d+ heads, its teacher"):
        texts.distill(tmp_path / "heads", {"hidden": heads.hidden_size // 2}, attention=1.0)
    texts.distill(tmp_path / "self", {"hidden": heads.hidden_size // 2}, self_relations=1.0, hidden=1.0)


def test_an_ensemble_answers_by_its_mean_probability(images: Taught, tmp_path: Path) -> None:
    other = Taught(Images(), tmp_path / "other")
    with torch.no_grad():
        weights = load(other.teacher)[0]
        weights.get_submodule("fc").weight.mul_(0.3)
    members = [load(images.teacher)[0], weights]
    pixels = torch.randn(4, 3, 32, 32)
    expected = sum(torch.softmax(member(pixels), 1) for member in members) / 2
    assert torch.allclose(torch.softmax(Ensemble(members)(pixels), 1), expected, atol=1e-6)
    found = images.distill(tmp_path / "a", IMAGES, inputs={"checkpoint-2": other.teacher}, teachers=2)
    size = sum(each.numel() for each in members[0].parameters())
    assert found.measurements["teacher_parameters"] == 2 * size
    strange = tmp_path / "strange"
    strange.mkdir()
    for file in other.teacher.iterdir():
        (strange / file.name).write_bytes(file.read_bytes())
    meta = json.loads((strange / "model.json").read_text())
    (strange / "model.json").write_text(json.dumps({**meta, "classes": ["a", "b", "c"]}))
    with pytest.raises(DataError, match="the first teacher's are"):
        images.distill(tmp_path / "b", IMAGES, inputs={"checkpoint-2": strange}, teachers=2)


def test_a_student_may_read_smaller_images(images: Taught, tmp_path: Path) -> None:
    small = Images(side=16).write(tmp_path / "small")
    inputs = {"teacher_data": images.data, "data": small}
    result = images.distill(
        tmp_path / "a", IMAGES, inputs=inputs, epochs=12, lr=1e-2, alpha=1.0, attention=1.0, augment="inspection"
    )
    assert load(result.folder)[1].input.height == 16
    data, own = Dataset.open(images.data), Dataset.open(small)
    told = logits(images.teacher, data.part(data.indices("val")), 1).argmax(1)
    said = logits(result.folder, own.part(own.indices("val")), 1).argmax(1)
    assert result.measurements["val_agreement"] == (told == said).mean()
    (tmp_path / "fewer").mkdir()
    for file in images.data.iterdir():
        (tmp_path / "fewer" / file.name).write_bytes(file.read_bytes())
    rows = (tmp_path / "fewer" / "rows.jsonl").read_text().replace("red/", "dark/")
    (tmp_path / "fewer" / "rows.jsonl").write_text(rows)
    with pytest.raises(DataError, match="in the student's data and not in the teacher's"):
        images.distill(tmp_path / "b", IMAGES, inputs={"teacher_data": tmp_path / "fewer", "data": small})


def test_answers_are_kept_by_content(images: Taught, tmp_path: Path) -> None:
    memo = tmp_path / "memo"
    memo.mkdir()
    first = images.distill(tmp_path / "a", IMAGES, memo=memo)
    rows = len(Dataset.open(images.data).indices("train")) + len(Dataset.open(images.data).indices("val"))
    again = images.distill(tmp_path / "b", {"base": "timm/test_resnet"}, memo=memo, lr=1e-4)
    assert (first.timings["teacher_rows"], again.timings["teacher_rows"]) == (rows, 0)
    other = tmp_path / "other"
    shutil.copytree(images.data, other)
    pixels = np.load(other / "pixels.npy")
    pixels[0, 0, 0, 0] ^= 1
    np.save(other / "pixels.npy", pixels)
    student = images.distill(tmp_path / "e", IMAGES, epochs=1).folder
    changes: dict[str, dict[str, Any]] = {
        "augment": {"augment": "inspection"},
        "data": {"inputs": {"data": other}},
        "teacher": {"inputs": {"checkpoint": student}},
        "hint": {"relations": 1.0},
    }
    for name, changed in changes.items():
        assert images.distill(tmp_path / name, IMAGES, memo=memo, epochs=1, **changed).timings["teacher_rows"] > 0, name
    plain = images.distill(tmp_path / "c", IMAGES)
    assert sha256_tree(plain.folder) == sha256_tree(first.folder)
    for file in memo.iterdir():
        file.write_bytes(file.read_bytes()[:200])  # a damaged file is computed anew
    healed = images.distill(tmp_path / "d", IMAGES, memo=memo)
    assert healed.timings["teacher_rows"] == rows
    assert sha256_tree(healed.folder) == sha256_tree(first.folder)


def unlabelled(data: Path, folder: Path) -> Path:
    """Return a copy of `data` whose training rows have lost their labels, all but every third."""
    folder.mkdir()
    for file in data.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for number, row in enumerate(row for row in rows if row["split"] == "train"):
        if number % 3:
            row |= {"split": "unlabelled", "label": -1, "class": ""}
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_rows_without_a_label_teach_through_the_teacher_alone(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    taught = request.getfixturevalue(kind)
    student = {"images": IMAGES, "texts": TEXTS}[kind]
    data = unlabelled(taught.data, tmp_path / "data")
    result = taught.distill(tmp_path / "a", student, inputs={"data": data}, alpha=1.0, epochs=3)
    count = len(Dataset.open(data).indices("unlabelled"))
    assert result.measurements["unlabelled"] == count > 0
    assert result.timings["teacher_rows"] == len(Dataset.open(data)) - len(Dataset.open(data).indices("test"))
    labels = taught.distill(tmp_path / "b", student, inputs={"data": data}, alpha=0.0, epochs=3, objective="decoupled")
    assert np.isfinite(json.loads((labels.folder / "history.json").read_text())[0]["train_loss"])
    with pytest.raises(UsageError, match="rows without a label have no class to balance"):
        taught.distill(tmp_path / "c", student, inputs={"data": data}, sampling="balanced")


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenetv3_small_050"])
def test_a_teacher_with_dropout_answers_with_hints_as_without(name: str) -> None:
    module, pixels = create_model(name, num_classes=2, drop_rate=0.5).eval(), torch.randn(8, 3, 32, 32)
    groups = depth_groups(module)
    teacher = Teacher(module, groups, lambda *_: pixels, "")
    hinted = teacher.answer(np.arange(8), None, [Spot(VECTOR, groups[-2][1])])
    plain = teacher.answer(np.arange(8), None, [])
    torch.testing.assert_close(hinted[LOGITS], plain[LOGITS])
    assert hinted.keys() == {LOGITS, VECTOR}


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_rows_without_a_label_are_trained_on(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    taught, events = request.getfixturevalue(kind), list[Event]()
    data = Dataset.open(unlabelled(taught.data, tmp_path / "data"))
    student = {"images": IMAGES, "texts": TEXTS}[kind]
    taught.distill(tmp_path / "a", student, events.append, inputs={"data": tmp_path / "data"}, epochs=1, batch_size=2)
    steps = sum(isinstance(event, Step) for event in events)
    assert steps == -(-(len(data.indices("train")) + len(data.indices("unlabelled"))) // 2)


@pytest.mark.parametrize("labelled", [0, 2, 6])
def test_labels_weigh_as_much_as_their_rows(labelled: int, images: Taught, tmp_path: Path) -> None:
    """Of six rows `labelled` have one: their mean loss counts for their share of the batch."""
    config = TrainConfig.model_validate({"model": images.model})
    data, ctx = Dataset.open(images.data), Context(tmp_path, tmp_path, seed=0, threads=1)
    with session(ctx, {"data": images.data}, config) as opened:
        loop = opened.loop()
    logits, labels = torch.randn(6, len(data.classes)), torch.tensor([0, 1, 0, 1, 1, 0])
    labels[labelled:] = -1
    guidance = Guidance(lambda *_: {}, lambda *_: torch.tensor(0.7), labels=0.3)
    own = torch.nn.functional.cross_entropy(logits[:labelled], labels[:labelled], reduction="sum") if labelled else 0.0
    torch.testing.assert_close(loop._guided(guidance, logits, labels, {}), torch.as_tensor(0.7 + 0.3 * own / 6))


def test_layers_are_mapped_to_those_named_or_evenly_spread() -> None:
    own, teachers = ([(f"layer.{index}", torch.nn.Identity()) for index in range(count)] for count in (3, 6))
    head = [("head", torch.nn.Identity())]
    assert _mapped(StudentConfig(layers=(0, 4, 5)), own + head, teachers + head) == [0, 4, 5]
    assert _mapped(StudentConfig(layers=3), own + head, teachers + head) == spread(6, 3)
    assert _mapped(StudentConfig(), head, head) == []


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_pruning_in_steps_heals_in_between(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    taught = request.getfixturevalue(kind)
    values: dict[str, Any] = {"prune": 0.4, "prune_steps": 2, "epochs": 2, "checkpoint_seconds": 0}
    if kind == "texts":
        values["prune"] = 0.2
    events: list[Event] = []
    result = taught.distill(tmp_path / "a", {}, events.append, **values)
    assert sum(note.startswith("step ") for note in result.notes) == 2
    size = sum(each.numel() for each in load(result.folder)[0].parameters())
    assert size == result.measurements["parameters"] < result.measurements["teacher_parameters"]
    steps = sum(isinstance(event, Progress) for event in events)
    whole = sha256_tree(result.folder)
    for stop in (steps // 3, 2 * steps // 3):
        seen = 0

        def kill(event: Event) -> None:
            nonlocal seen
            seen += isinstance(event, Progress)
            if seen >= stop:  # noqa: B023 - called in this turn of the loop
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            taught.distill(tmp_path / f"{stop}", {}, kill, **values)
        assert sha256_tree(taught.distill(tmp_path / f"{stop}", {}, **values).folder) == whole


def test_blocks_go_by_the_loss_without_them(images: Taught, tmp_path: Path) -> None:
    result = images.distill(tmp_path / "a", {"drop_blocks": 1})
    module, meta = load(result.folder)
    assert len(meta.dropped) == 1
    assert any(f"without {meta.dropped[0]}" in note for note in result.notes)
    assert module.get_submodule(meta.dropped[0])(torch.ones(1, 2)).tolist() == [[1, 1]]
    with pytest.raises(UsageError, match=r"drop_blocks: 50, and \d+ blocks of ResNet"):
        images.distill(tmp_path / "b", {"drop_blocks": 50})


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_baselines_are_the_same_student_without_a_teacher(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    taught = request.getfixturevalue(kind)
    student = {"images": {"drop_blocks": 1}, "texts": TEXTS}[kind]
    result = taught.distill(tmp_path, student, baselines=True, epochs=1)
    found = result.measurements["baselines"]
    assert set(found) == {"without_teacher", "from_scratch"}
    states = [
        load(place)[0].state_dict() for place in (result.folder, *(result.folder / name for name in sorted(found)))
    ]
    assert len({tuple(state) for state in states}) == 1  # one architecture
    assert len({float(sum(each.double().sum() for each in state.values())) for state in states}) == 3


def test_a_baseline_by_name_is_trained_alone(images: Taught, tmp_path: Path) -> None:
    result = images.distill(tmp_path, {"drop_blocks": 1}, baselines=["from_scratch"], epochs=1)
    assert set(result.measurements["baselines"]) == {"from_scratch"}
    assert not (result.folder / "without_teacher").exists()


@pytest.mark.parametrize(
    ("kind", "values", "near"),
    [
        ("images", {"features": 1.0, "attention": 1.0}, 0.05),
        ("texts", {"hidden": 1.0, "features": 1.0}, 0.25),  # its dropout draws other numbers in half precision
    ],
)
def test_hints_take_what_half_precision_shows(
    kind: str, values: dict[str, float], near: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    student = {"images": {"drop_blocks": 1}, "texts": TEXTS}[kind]
    taught: Taught = request.getfixturevalue(kind)
    losses = []
    for precision in ("fp32", "bf16"):
        result = taught.distill(tmp_path / precision, student, precision=precision, epochs=1, lr=1e-9, **values)
        losses.append(json.loads((result.folder / "history.json").read_text())[-1]["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=near)


def test_a_head_that_pools_is_given_the_mean_of_its_map(images: Taught, tmp_path: Path) -> None:
    result = images.distill(tmp_path, {"base": "timm/test_convnext"}, epochs=1, relations=1.0, batch_size=8)
    assert np.isfinite(json.loads((result.folder / "history.json").read_text())[0]["train_loss"])
    module = load(result.folder)[0]
    groups = depth_groups(module)
    spot = vector(module, groups)
    with watching([spot]) as seen, torch.no_grad():
        chain(groups)(torch.zeros(3, 3, 64, 64))
    assert seen[VECTOR].shape == (3, groups[-1][1].in_features)  # type: ignore[union-attr] # a ClassifierHead


def test_strides_are_powers_of_two_at_any_size() -> None:
    module = create_model("resnet18", num_classes=2)
    for size in (144, 176, 200, 224):
        found = maps(module, depth_groups(module), torch.zeros(1, 3, size, size), size)
        assert list(found) == [4, 8, 16, 32], size
        assert found[32].module is module.layer4  # before it is pooled
    pooled = create_torchvision("convnext_tiny", num_classes=2)
    found = maps(pooled, depth_groups(pooled), torch.zeros(1, 3, 64, 64), 64)
    assert list(found) == [4, 8, 16, 32]
    with pytest.raises(UsageError, match="SwinTransformer hold channels last"):
        maps(create_torchvision("swin_t"), [], torch.zeros(1), 1)
    with pytest.raises(UsageError, match="SwinTransformer hold channels last"):
        maps(create_model("swin_tiny_patch4_window7_224"), [], torch.zeros(1), 1)


def test_student_and_teacher_see_the_same_augmentation_whatever_rows_each_has(images: Taught, tmp_path: Path) -> None:
    data = Dataset.open(images.data)
    fewer = tmp_path / "fewer"
    shutil.copytree(images.data, fewer)
    lines = [json.loads(line) for line in (fewer / "rows.jsonl").read_text().splitlines()]
    left = [line for line in lines if line["index"] != 3]
    for place, line in enumerate(left):
        line["index"] = place
    (fewer / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in left))
    head = json.loads((fewer / "dataset.json").read_text())
    (fewer / "dataset.json").write_text(json.dumps({**head, "n": len(left)}))
    np.save(fewer / "pixels.npy", np.delete(np.load(fewer / "pixels.npy"), 3, axis=0))
    own = Dataset.open(fewer)
    spec = TrainConfig.model_validate({"model": images.model, "augment": "inspection"}).augment
    views = Views(own, spec, 2, 7, torch.device("cpu"))
    matched = Matched(Views(data, spec, 2, 7, torch.device("cpu")), own, data)
    rows = np.arange(len(own))
    assert torch.equal(views(rows, 1).clone(), matched(rows, 1))
    assert not torch.equal(views(rows, 1).clone(), views(rows, 0))


def test_students_are_cut_once_for_all_trainings(
    images: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(knowledge, "create_student", lambda *args: made.append(1) or create_student(*args))
    images.distill(tmp_path, {"drop_blocks": 1}, baselines=True, epochs=1)
    assert len(made) == 1


def test_from_scratch_nothing_of_the_teacher_is_left() -> None:
    for base in ("timm/test_vit", "timm/test_convnext"):
        config = ModelConfig(base=base)
        module = create_with_notes(config, None, ("a", "b"), 0).module
        taught = {name: torch.full_like(each, 0.123) for name, each in module.state_dict().items()}
        module.load_state_dict(taught)
        reset_(module, config, ("a", "b"), 5)
        kept = [name for name, each in module.state_dict().items() if (each == each.new_tensor(0.123)).all()]
        assert kept == [], base
        fresh = create_with_notes(config, None, ("a", "b"), 9).module.state_dict()
        for name, each in module.state_dict().items():
            if each.ndim > 1:
                assert each.std() == pytest.approx(float(fresh[name].std()), rel=0.5), name
