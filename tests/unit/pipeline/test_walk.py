"""The walk: run, reuse, resume, share with another process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeft import catalog
from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.core.events import Event, Message, StageFinished, StageStarted
from edgeft.core.record import StageRecord
from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.core.store import Entry, Store
from edgeft.pipeline.walk import walk
from edgeft.recipe.load import load_recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import stages

NAMES = ["data", "finetune", "export", "compress", "choose", "lower", "decide", "verify"]


def go(
    project: Path, *overrides: str, heard: list[Event] | None = None
) -> tuple[dict[str, Entry], tuple[StageRecord, ...]]:
    recipe = load_recipe(project, overrides)
    store = Store(project / ".edgeft")
    store.prepare()
    resolver = Resolver(store, source_digests(recipe, store.cache), recipe.seed)
    return walk(stages(recipe, store), resolver, store, (heard if heard is not None else []).append)


def ran(heard: list[Event]) -> list[str]:
    return [
        event.text.removeprefix("ran ") for event in heard if isinstance(event, Message) and event.text[:4] == "ran "
    ]


def test_stages_run_in_order_then_are_reused(project: Path) -> None:
    first: list[Event] = []
    entries, records = go(project, heard=first)
    assert ran(first) == NAMES
    assert [record.name for record in records] == NAMES
    assert [event.stage for event in first if isinstance(event, StageStarted)] == NAMES
    assert (entries["verify"].folder / "verify.json").is_file()
    second: list[Event] = []
    again, reused = go(project, heard=second)
    assert ran(second) == []
    assert all(record.reused and record.reason == "reused" for record in reused)
    assert [event.reused for event in second if isinstance(event, StageFinished)] == [True] * len(NAMES)
    assert again == entries


def test_a_reused_stage_still_tells_what_it_found(project: Path) -> None:
    go(project)
    _, records = go(project)
    assert records[0].measurements == {"n": 3}
    assert records[0].notes == ("note of data",)
    assert records[0].timings["seconds"] >= 0


def test_two_caches_hold_the_same_content(project: Path, tmp_path: Path) -> None:
    entries, _ = go(project)
    (project / ".edgeft").rename(tmp_path / "first")
    again, _ = go(project)
    assert {name: entry.digest for name, entry in again.items()} == {name: e.digest for name, e in entries.items()}
    assert {name: entry.key for name, entry in again.items()} == {name: e.key for name, e in entries.items()}


def test_an_interrupted_stage_goes_on_where_it_stopped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = catalog.resolve("toy_room:time")
    calls: list[float] = []

    def interrupt(seconds: float) -> None:
        calls.append(seconds)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(project, "finetune.epochs=6")
    heard: list[Event] = []
    go(project, "finetune.epochs=6", heard=heard)
    assert len(calls) == 4 + 3
    reasons = {event.stage: event.reason for event in heard if isinstance(event, StageStarted)}
    assert "data" not in reasons
    assert reasons["finetune"] == "resumes a run that was stopped"
    assert list((project / ".edgeft" / "work").iterdir()) == []


def broken(ctx: Context, _inputs: Inputs, _config: object) -> StageResult:
    (ctx.folder / "x").write_text("x")
    return StageResult(ctx.folder, measurements={"loss": [1.0, float("nan")]})


def test_a_measurement_that_is_no_number_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog.resolve("toy_room:METHODS") and sys.modules["toy_room"], "export", broken)
    with pytest.raises(EdgeftError, match="stage export reports loss as NaN"):
        go(project)


def test_a_full_disk_in_a_stage_leaves_a_resumable_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeft.core.disk import disk_errors

    def fill(ctx: Context, _inputs: Inputs, _config: object) -> StageResult:
        (ctx.folder / "partial").write_text("x")
        raise OSError(28, "No space left on device")

    catalog.resolve("toy_room:export")
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["toy_room"], "export", fill)
        cache = project / ".edgeft"
        with pytest.raises(DeviceError, match="is full"), disk_errors(cache, purpose="the cache", option="--cache"):
            go(project)
        assert not any((cache / "work").glob("*/entry/out/partial"))
    heard: list[Event] = []
    go(project, heard=heard)
    assert ran(heard) == NAMES[2:]


def test_what_a_stage_keeps_by_content_outlives_its_key(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, found = catalog.resolve("toy_room:train"), []

    def keep(ctx: Context, inputs: Inputs, config: object) -> StageResult:
        assert ctx.memo is not None
        found.append(sorted(path.name for path in ctx.memo.glob("*.kept")))
        (ctx.memo / f"{len(found)}.kept").write_text("x")
        return train(ctx, inputs, config)  # type: ignore[no-any-return] # resolved by name

    monkeypatch.setattr(sys.modules["toy_room"], "train", keep)
    go(project)
    go(project, "finetune.epochs=5")
    assert found == [[], ["1.kept"]]


CHILD = """
    import sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[1]]
    import toy_room
    from edgeft import catalog
    catalog.METHODS = toy_room.METHODS
    catalog._lowerings = tuple
    catalog.exporters = lambda: {"onnx": "toy_room:ToyExporter"}
    from edgeft.core.store import Store
    from edgeft.pipeline.walk import walk
    from edgeft.recipe.load import load_recipe
    from edgeft.recipe.resolve import Resolver, source_digests
    from edgeft.recipe.stages import stages
    recipe = load_recipe(Path(sys.argv[2]), ["finetune.pause=0.05", "finetune.epochs=6"])
    store = Store(Path(sys.argv[3]))
    store.prepare()
    print("ready", flush=True)
    resolver = Resolver(store, source_digests(recipe, store.cache), recipe.seed)
    entries, records = walk(stages(recipe, store), resolver, store, lambda e: print(e, flush=True))
    import json
    print(json.dumps({n: e.digest for n, e in entries.items()} | {"ran": [r.name for r in records if not r.reused]}))
"""


def child(project: Path, cache: Path) -> subprocess.Popen[str]:
    toys = Path(__file__).parent / "toys"
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(toys), str(project), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def test_kill_minus_nine_after_any_event_then_the_same_content(project: Path, tmp_path: Path) -> None:
    reference = finish(child(project, tmp_path / "reference"))
    for number, wanted in enumerate((1, 3, 5, 8, 14)):
        cache = tmp_path / f"cache{number}"
        killed = child(project, cache)
        assert killed.stdout is not None
        for _ in range(wanted):
            killed.stdout.readline()
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        resumed = finish(child(project, cache))
        assert {k: v for k, v in resumed.items() if k != "ran"} == {k: v for k, v in reference.items() if k != "ran"}
        assert finish(child(project, cache))["ran"] == []


def test_two_builds_at_once_share_the_work(project: Path, tmp_path: Path) -> None:
    both = [child(project, tmp_path / "cache") for _ in range(2)]
    found = [finish(process) for process in both]
    assert sorted([*found[0]["ran"], *found[1]["ran"]]) == sorted(NAMES)
    assert {k: v for k, v in found[0].items() if k != "ran"} == {k: v for k, v in found[1].items() if k != "ran"}
