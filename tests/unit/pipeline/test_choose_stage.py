import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeft.core.errors import DataError
from edgeft.core.stage import Context
from edgeft.pipeline.choose import run
from edgeft.pipeline.stage_configs import ChooseConfig
from edgeft.runtime import launch as launching
from edgeft.runtime.worker import Request, Timing


@pytest.fixture
def context(tmp_path: Path) -> Context:
    folder, workspace = tmp_path / "out", tmp_path / "work"
    folder.mkdir()
    workspace.mkdir()
    return Context(folder, workspace, seed=0, threads=1)


def candidates(folder: Path, **holds: bool) -> Path:
    listed = []
    for name, hold in holds.items():
        path = folder / "candidates" / name / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        file = path.relative_to(folder).as_posix()
        size = {"fp32": 16, "int8": 5}.get(name, 6)
        listed.append(
            {"name": name, "precision": name, "file": file, "size_bytes": size, "validation": {"holds_margin": hold}}
        )
    (folder / "candidates.json").write_text(json.dumps({"schema": 1, "candidates": listed}))
    return folder


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Request]]:
    """Makes every process answer with its candidate's simulated latency."""

    def use(noise: float = 0.01, **levels: float) -> list[Request]:
        rng, asked = np.random.default_rng(0), []

        def launch(request: Request) -> Timing:
            asked.append(request)
            level = levels[Path(request.model).parent.name] * np.exp(rng.normal(0, noise))
            return Timing(1.0, 1.0, [level] * request.samples, 1, 1)

        monkeypatch.setattr(launching, "launch", launch)
        return asked

    return use


def choice(context: Context) -> dict[str, object]:
    found: dict[str, object] = json.loads((context.folder / "choice.json").read_text())
    return found


def test_the_clearly_faster_candidate_ships(
    context: Context, tmp_path: Path, tiny_data: Path, machine: Callable
) -> None:
    asked = machine(fp32=10.0, int8=7.0)
    folder = candidates(tmp_path / "c", fp32=True, int8=True)
    result = run(context, {"compress": folder, "data": tiny_data}, ChooseConfig(rounds=5))
    found = choice(context)
    assert found == {"schema": 1, "chosen": "int8"}
    assert "times as long as fp32" in str(result.timings["reason"])
    assert (context.folder / "model.onnx").read_bytes() == b"int8"
    order = [Path(request.model).parent.name for request in asked]
    assert order == ["fp32", "int8", "int8", "fp32"] * 5
    assert result.measurements == {"chosen": "int8"}
    assert set(result.timings["latency"]) == {"fp32", "int8"}
    rows = [json.loads(line) for line in (tiny_data / "rows.jsonl").read_text().splitlines()]
    stored = np.load(tiny_data / "pixels.npy")
    validation = {stored[row["index"]].tobytes() for row in rows if row["split"] == "val"}
    with np.load(str(asked[0].inputs)) as fed:
        assert all(one.tobytes() in validation for one in fed["pixels"])


@pytest.mark.parametrize(("int8", "noise"), [(10.0, 0.01), (13.0, 0.01), (9.9, 0.05)])
def test_without_a_clear_gain_float_ships(
    context: Context, tmp_path: Path, tiny_data: Path, machine: Callable, int8: float, noise: float
) -> None:
    machine(noise, fp32=10.0, int8=int8)
    folder = candidates(tmp_path / "c", fp32=True, int8=True)
    result = run(context, {"compress": folder, "data": tiny_data}, ChooseConfig(rounds=5))
    assert choice(context)["chosen"] == "fp32"
    assert "nothing that holds" in str(result.timings["reason"])


def test_the_fastest_of_several_ships(context: Context, tmp_path: Path, tiny_data: Path, machine: Callable) -> None:
    asked = machine(fp32=10.0, int8=7.0, mixed=6.0)
    folder = candidates(tmp_path / "c", fp32=True, int8=True, mixed=True)
    run(context, {"compress": folder, "data": tiny_data}, ChooseConfig(rounds=3))
    assert choice(context)["chosen"] == "mixed"
    assert [Path(one.model).parent.name for one in asked[:6]] == ["fp32", "int8", "mixed", "mixed", "int8", "fp32"]


def test_what_breaks_the_margin_is_not_even_timed(
    context: Context, tmp_path: Path, tiny_data: Path, machine: Callable
) -> None:
    asked = machine(fp32=10.0, int8=1.0)
    folder = candidates(tmp_path / "c", fp32=True, int8=False)
    result = run(context, {"compress": folder, "data": tiny_data}, ChooseConfig())
    assert choice(context)["chosen"] == "fp32"
    assert "no other candidate holds the margin of 2 pp accuracy" in str(result.timings["reason"])
    assert asked == []
    assert result.notes == ("int8 loses too much on validation to be chosen",)


def test_without_rounds_the_smallest_that_may_ships_and_nothing_is_timed(
    context: Context, tmp_path: Path, tiny_data: Path, machine: Callable
) -> None:
    asked = machine(fp32=1.0, int8=10.0, mixed=10.0)
    folder = candidates(tmp_path / "c", fp32=True, int8=False, mixed=True)
    run(context, {"compress": folder, "data": tiny_data}, ChooseConfig(rounds=0))
    assert choice(context)["chosen"] == "mixed"
    assert asked == []


def test_float_must_be_among_the_candidates(context: Context, tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(DataError, match="no fp32 candidate"):
        run(context, {"compress": candidates(tmp_path / "c", int8=True), "data": tiny_data}, ChooseConfig())
