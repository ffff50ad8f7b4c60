"""`student: auto`: candidates are timed untrained, those within the budget are tried, and the best one is taught."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError

from edgeft.core.errors import UsageError
from edgeft.core.events import Event, EventSink, Message, ignore
from edgeft.core.stage import Context, StageResult
from edgeft.distill.config import KnowledgeConfig
from edgeft.models.checkpoint import load
from edgeft.pipeline import propose
from edgeft.pipeline.propose import Measured
from edgeft.pipeline.stage_configs import ProposeConfig
from edgeft.testing.taught import Taught


def proposed(
    taught: Taught,
    folder: Path,
    emit: EventSink = ignore,
    compress: dict[str, Any] | None = None,
    **values: Any,  # noqa: ANN401 - settings
) -> StageResult:
    settings = {"model": taught.model, "student": "auto", "budget_ms": 1e6, "epochs": 2, "batch_size": 12, **values}
    block = KnowledgeConfig.model_validate(settings).model_dump(mode="json")
    for each in ("out", "workspace"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    context = Context(folder / "out", folder / "workspace", seed=0, threads=1, emit=emit)
    config = ProposeConfig(distill=block, compress=compress or {})
    return propose.run(context, {"data": taught.data, "checkpoint": taught.teacher}, config)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_the_winner_is_taught(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    taught: Taught = request.getfixturevalue(kind)
    candidates: list[dict[str, Any]] = {
        "images": [{"prune": 0.2}, {"student": {"drop_blocks": 1}}, {"student": {"base": "timm/test_efficientnet"}}],
        "texts": [{"student": {"layers": 1}}, {"prune": 0.2}],
    }[kind]
    events: list[Event] = []
    found = proposed(taught, tmp_path / "a", events.append, candidates=candidates, trial_epochs=2)
    trials: Any = found.measurements["trials"]
    assert len(trials) == len(candidates)
    finalists = {name: values["2"] for name, values in trials.items() if "2" in values}
    assert len(finalists) == 2
    assert all("1" in values for values in trials.values()) or len(candidates) == 2
    chosen = found.measurements["chosen"]
    assert finalists[str(chosen)] == max(finalists.values())
    timed: Any = found.timings["candidates"]
    assert all(each["milliseconds"] > 0 and each["size_bytes"] > 0 for each in timed)
    again: list[Event] = []
    assert proposed(taught, tmp_path / "a", again.append, candidates=candidates, trial_epochs=2) == found
    assert not any(isinstance(event, Message) and "epochs" in event.text for event in again)  # kept, not trained again
    result = taught.distill(tmp_path / "b", {"auto": True}, inputs={"proposal": tmp_path / "a" / "out"}, budget_ms=1.0)
    written = json.loads((tmp_path / "a" / "out" / "proposal.json").read_bytes())
    assert propose._named(written["chosen"]) == chosen
    plain = {key: value for key, value in candidates[written["number"] - 1].items() if key == "prune"}
    student = propose._written(written["chosen"])
    named = taught.distill(tmp_path / "c", student, **plain)
    assert result.measurements["parameters"] == named.measurements["parameters"]
    assert load(result.folder)[0].state_dict().keys() == load(named.folder)[0].state_dict().keys()


def test_a_budget_that_nobody_meets_names_the_nearest(texts: Taught, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no candidate is as fast on this device; the nearest is layers 1 with"
    ) as said:
        proposed(texts, tmp_path, budget_ms=1e-6)
    assert "distill.budget_ms: " in str(said.value.hint)


def test_halving_leaves_the_worse_out_and_trains_the_better_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worth = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.6}
    asked: list[tuple[str, int]] = []

    def tried(_: Context, __: object, ___: object, finalist: Measured, epochs: int) -> float:
        asked.append((finalist.name, epochs))
        if finalist.name == "e":
            raise UsageError("no place for features")
        return worth[finalist.name]

    monkeypatch.setattr(propose, "_tried", tried)
    context = Context(tmp_path, tmp_path, seed=0, threads=1)
    finalists = [Measured(number, {}, name, 1.0, 1) for number, name in enumerate(worth, 1)]
    told, winner, failed = propose._halved(context, {}, {"trial_epochs": 8}, finalists)
    assert (winner.name, failed) == ("a", [])
    assert {name for name, epochs in asked if epochs == 4} == set(worth)
    assert {name for name, epochs in asked if epochs == 8} == {"a", "c"}
    assert set(told["b"]) == {"4"}
    assert propose._halved(context, {}, {"trial_epochs": 8}, finalists[:1])[1].name == "a"
    assert len(asked) == 6
    told, _, _ = propose._halved(context, {}, {"trial_epochs": 4}, finalists[:3])
    assert {tuple(values) for values in told.values()} == {("2",), ("2", "4")}
    lost = Measured(5, {}, "e", 1.0, 1)
    _, winner, failed = propose._halved(context, {}, {"trial_epochs": 4}, [lost, *finalists[1:2]])
    assert (winner.name, failed) == ("b", ["student: e cannot be taught: no place for features"])
    with pytest.raises(UsageError, match="e cannot be taught"):
        propose._halved(context, {}, {"trial_epochs": 4}, [lost, lost])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"student": "auto"}, "auto and budget_ms go together"),
        ({"student": {"layers": 1}, "budget_ms": 3.0}, "auto and budget_ms go together"),
        ({"student": "auto", "budget_ms": 3.0, "prune": 0.2}, "auto chooses how much goes"),
        ({"student": {"layers": 1}, "candidates": [{"prune": 0.1}]}, "candidates go with student: auto"),
        ({"student": "auto", "budget_ms": 3.0, "candidates": [{}]}, "each needs a student"),
        (
            {"student": "auto", "budget_ms": 3.0, "candidates": [{"student": {"base": "timm/resnet18"}, "prune": 0.3}]},
            "prune takes from the teacher's own weights",
        ),
        ({"student": {"auto": True, "layers": 1}, "budget_ms": 3.0}, "auto stands alone"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, Any], said: str, texts: Taught) -> None:
    with pytest.raises(ValidationError, match=said):
        KnowledgeConfig.model_validate({"model": texts.model, **values})


def test_the_proposal_is_json_that_a_reader_understands(texts: Taught, tmp_path: Path) -> None:
    proposed(texts, tmp_path, candidates=[{"student": {"layers": 1}}])
    found = json.loads((tmp_path / "out" / "proposal.json").read_text())
    assert found["chosen"]["student"]["layers"] == 1


def test_a_candidate_that_cannot_be_is_named(images: Taught) -> None:
    candidates = [{"prune": 0.2}, {"student": {"layers": 1}}]
    settings = {"model": images.model, "student": "auto", "budget_ms": 5.0, "candidates": candidates}
    with pytest.raises(UsageError, match=r"distill\.candidates\.1\.student\.layers: .* takes images") as said:
        KnowledgeConfig.model_validate(settings)
    assert said.value.hint == "distill.candidates.1.student: {base: timm/mobilenetv3_small_100}"


def test_a_candidates_own_weights_are_those_it_begins_with(images: Taught, tmp_path: Path) -> None:
    base = "timm/test_efficientnet"
    torch.manual_seed(5)
    own = timm.create_model("test_efficientnet", num_classes=3)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    candidates = [{"prune": 0.2}, {"student": {"base": base, "weights": "own.pth"}}]
    settings = {"model": images.model, "student": "auto", "budget_ms": 1e6, "candidates": candidates}
    config = KnowledgeConfig.model_validate(settings)
    proposal = {"chosen": config.candidates[1].model_dump(mode="json"), "number": 2}
    (tmp_path / "proposal.json").write_text(json.dumps(proposal))
    inputs = {"proposal": tmp_path, "student-2": tmp_path / "own.pth"}
    result = images.distill(
        tmp_path / "taught", {"auto": True}, inputs=inputs, budget_ms=1e6, candidates=candidates, lr=1e-9, epochs=1
    )
    found = load(result.folder)[0].state_dict()
    name = next(key for key in found if key.endswith("conv_stem.weight"))
    assert torch.allclose(found[name], own.state_dict()["conv_stem.weight"], atol=1e-6)


def test_layers_are_counted_by_either_name(tmp_path: Path) -> None:
    for name in ("num_hidden_layers", "n_layers"):
        (tmp_path / "model.json").write_text(json.dumps({"encoder": {name: 6}}))
        found = propose._candidates({"checkpoint": tmp_path}, {"candidates": []})
        assert found == [{"student": {"layers": layers}} for layers in (4, 3, 2)]


def test_a_candidate_that_cannot_be_made_is_left_out(images: Taught, tmp_path: Path) -> None:
    few = [{"student": {"drop_blocks": 50}}, {"student": {"base": "timm/test_efficientnet"}}]
    found = proposed(images, tmp_path / "a", candidates=few)
    assert found.measurements["chosen"] == "base timm/test_efficientnet"
    assert any("drop_blocks 50 cannot be made: distill.student.drop_blocks: 50" in note for note in found.notes)
    with pytest.raises(UsageError, match="drop_blocks 50 cannot be made"):
        proposed(images, tmp_path / "b", candidates=few[:1])


def test_a_finalist_that_cannot_be_taught_is_left_out(images: Taught, tmp_path: Path) -> None:
    few = [{"student": {"base": name}} for name in ("timm/test_vit", "timm/test_efficientnet")]
    found = proposed(images, tmp_path, candidates=few, trial_epochs=1, features=1.0)
    assert found.measurements["chosen"] == "base timm/test_efficientnet"
    assert any("test_vit cannot be" in note for note in found.notes)


def test_candidates_are_made_as_what_ships(texts: Taught, tmp_path: Path) -> None:
    proposed(texts, tmp_path, compress={"precision": "fp32"}, candidates=[{"student": {"layers": 1}}])
    names = [path.parent.name for path in tmp_path.glob("workspace/*/compress/out/candidates/*/model.onnx")]
    assert names == ["fp32"]


def test_a_teacher_without_layers_to_leave_out_asks_for_candidates(tmp_path: Path) -> None:
    for encoder in ({"num_hidden_layers": 1}, {"depth": 3}):
        (tmp_path / "model.json").write_text(json.dumps({"encoder": encoder}))
        with pytest.raises(UsageError, match="no layers to leave out"):
            propose._candidates({"checkpoint": tmp_path}, {"candidates": []})
