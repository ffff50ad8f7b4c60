"""The store: whole or absent, read-only, resumable, one builder a key."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DeviceError, EdgeftError, IntegrityError
from edgeft.core.events import Message
from edgeft.core.keys import changes, components, key_of
from edgeft.core.stage import Method
from edgeft.core.store import Store

METHOD = Method("finetune", "toy", "m:C", "m:run", 3, ("pytest", "no-such-distribution"))


def parts(**config: object) -> dict:
    return components(METHOD, config, inputs={"data": "d" * 64}, seed=7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "cache")
    made.prepare()
    return made


def put(store: Store, made_of: dict, files: dict[str, str]) -> object:
    with store.building(made_of, work="toy") as slot:
        for name, text in files.items():
            (slot.out / name).parent.mkdir(parents=True, exist_ok=True)
            (slot.out / name).write_text(text)
        return store.commit(slot, measurements={"n": 1}, notes=("a",), timings={"s": 2.0}, seconds=1.5)


def test_a_key_changes_with_every_component() -> None:
    base = components(METHOD, {"lr": 1}, inputs={"data": "a"}, seed=0)
    others = [
        components(METHOD, {"lr": 2}, inputs={"data": "a"}, seed=0),
        components(METHOD, {"lr": 1}, inputs={"data": "b"}, seed=0),
        components(METHOD, {"lr": 1}, inputs={"data": "a"}, seed=1),
        components(METHOD, {"lr": 1}, inputs={"data": "a"}, seed=0, device={"cpu": "x"}),
        components(Method("finetune", "toy", "m:C", "m:run", 4, METHOD.needs), {"lr": 1}, inputs={"data": "a"}, seed=0),
        components(Method("finetune", "toy", "m:C", "m:run", 3), {"lr": 1}, inputs={"data": "a"}, seed=0),
    ]
    assert len({key_of(item) for item in [base, *others]}) == 7
    assert base["needs"] == {"pytest": pytest.__version__, "no-such-distribution": "absent"}


def test_a_key_does_not_depend_on_the_order_of_config_keys() -> None:
    one, two = parts(a=1, b=2), parts(b=2, a=1)
    assert key_of(one) == key_of(two)


def test_changes_name_every_leaf_that_differs() -> None:
    found = list(changes({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3, "e": 4}, "d": [1]}))
    assert [(change.path, change.old, change.new) for change in found] == [
        (("a", "b"), 1, 3),
        (("a", "e"), None, 4),
        (("a", "c"), 2, None),
    ]
    assert found[1].added
    assert found[2].removed


def test_true_and_one_are_different_settings() -> None:
    assert len(list(changes({"a": True}, {"a": 1}))) == 1


def test_an_entry_comes_back_as_it_was_stored(store: Store) -> None:
    made = put(store, parts(lr=1), {"model.bin": "abc", "deep/er/x.json": "{}"})
    found = store.lookup(key_of(parts(lr=1)))
    assert found == made
    assert (found.folder / "deep/er/x.json").read_text() == "{}"
    assert found.digest == sha256_tree(found.folder)
    assert (found.measurements, found.notes, found.timings, found.seconds) == ({"n": 1}, ("a",), {"s": 2.0}, 1.5)
    store.check(found.key)


def test_stored_files_are_read_only_and_no_work_is_left(store: Store) -> None:
    made = put(store, parts(), {"model.bin": "abc"})
    assert stat.S_IMODE((made.folder / "model.bin").stat().st_mode) == 0o444
    assert list((store.cache / "work").iterdir()) == []


def test_the_digest_is_of_the_content_not_of_the_key(store: Store) -> None:
    assert put(store, parts(lr=1), {"a": "x"}).digest == put(store, parts(lr=2), {"a": "x"}).digest
    assert put(store, parts(lr=3), {"b": "x"}).digest != put(store, parts(lr=4), {"a": "x"}).digest


def test_a_failing_stage_keeps_its_scratch_and_leaves_no_entry(store: Store) -> None:
    def interrupted() -> None:
        with store.building(parts(), work="toy") as slot:
            (slot.out / "half").write_text("x")
            (slot.scratch / "epoch").write_text("3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.lookup(key_of(parts())) is None
    assert store.has_scratch(key_of(parts()))
    with store.building(parts(), work="toy") as slot:
        assert list(slot.out.iterdir()) == []
        assert slot.resumed
        assert (slot.scratch / "epoch").read_text() == "3"


def test_a_stage_that_writes_nothing_is_an_error(store: Store) -> None:
    with pytest.raises(EdgeftError, match="wrote no file"):
        put(store, parts(), {})


def test_a_link_in_an_output_is_an_error(store: Store) -> None:
    with store.building(parts(), work="toy") as slot:
        (slot.out / "link").symlink_to("/etc/hostname")
        with pytest.raises(EdgeftError, match="is a link"):
            store.commit(slot, measurements={}, notes=(), timings={}, seconds=0.0)


@pytest.mark.parametrize("harm", ["truncate", "remove", "add", "meta"])
def test_a_damaged_entry_is_not_reused_and_is_made_again(store: Store, harm: str) -> None:
    made = put(store, parts(), {"a": "12345", "b": "6"})
    (made.folder / "a").chmod(0o644)
    if harm == "truncate":
        (made.folder / "a").write_text("1")
    elif harm == "remove":
        (made.folder / "a").unlink()
    elif harm == "add":
        (made.folder / "c").write_text("?")
    else:
        (made.folder.parent / "meta.json").write_text('{"key": ')
    assert store.lookup(made.key) is None
    assert store.damage(made.key)
    assert list(store.entries()) == []
    assert put(store, parts(), {"a": "12345", "b": "6"}).digest == made.digest


def test_check_reads_every_byte(store: Store) -> None:
    made = put(store, parts(), {"a": "12345"})
    (made.folder / "a").chmod(0o644)
    (made.folder / "a").write_text("12346")
    assert store.lookup(made.key) is not None
    with pytest.raises(IntegrityError, match=made.key):
        store.check(made.key)


def test_the_latest_components_of_a_stage_are_remembered(store: Store) -> None:
    assert store.last("finetune") is None
    store.remember("finetune", parts(lr=1))
    store.remember("finetune", parts(lr=2))
    assert store.last("finetune")["config"] == {"lr": 2}


def test_a_memo_is_computed_once(store: Store) -> None:
    calls = []
    for _ in range(2):
        assert store.memo({"model": "m"}, lambda: calls.append(1) or {"height": 224}) == {"height": 224}
    assert calls == [1]


def test_reading_a_cache_that_does_not_exist_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert store.lookup("0" * 64) is None
    assert store.last("data") is None
    assert list(store.entries()) == []
    assert store.memo({"a": 1}, lambda: {"b": 2}) == {"b": 2}
    assert not (tmp_path / "none").exists()


def test_a_cache_path_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DeviceError, match="cache") as caught:
        Store(tmp_path / "cache").prepare()
    assert "--cache" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(DeviceError, match="locked"):
        Store(tmp_path / "locked" / "cache").prepare()


def test_work_abandoned_for_a_week_is_dropped(store: Store) -> None:
    for name, age in (("old", 8), ("new", 1)):
        folder = store.cache / "work" / name
        folder.mkdir()
        os.utime(folder, (time.time() - age * 86400,) * 2)
    store.prepare()
    assert [path.name for path in (store.cache / "work").iterdir()] == ["new"]


def test_a_second_builder_waits_says_so_and_finds_the_result(store: Store) -> None:
    inside, release, heard, found = threading.Event(), threading.Event(), [], []

    def first() -> None:
        with store.building(parts(), work="finetune") as slot:
            inside.set()
            release.wait(10)
            (slot.out / "a").write_text("1")
            store.commit(slot, measurements={}, notes=(), timings={}, seconds=0.0)

    def hear(event: object) -> None:
        heard.append(event)
        release.set()

    worker = threading.Thread(target=first)
    worker.start()
    assert inside.wait(10)
    with store.building(parts(), work="finetune", emit=hear) as slot:
        found.append(store.lookup(slot.key))
    worker.join(10)
    assert found[0] is not None
    assert isinstance(heard[0], Message)
    assert str(os.getpid()) in heard[0].text
    assert "finetune" in heard[0].text


CHILD = """
    import sys, time
    from pathlib import Path
    from edgeft.core.store import Store
    store = Store(Path(sys.argv[1]))
    store.prepare()
    parts = {"method": "toy", "config": {}, "n": int(sys.argv[2])}
    with store.building(parts, work="toy") as slot:
        start = len(list(slot.scratch.iterdir()))
        for index in range(start, 6):
            (slot.scratch / str(index)).write_text("done")
            (slot.out / f"file{index}").write_text("x" * 50_000)
            print(index, flush=True)
            time.sleep(0.02)
        for index in range(6):
            (slot.out / f"file{index}").write_text("x" * 50_000)
        store.commit(slot, measurements={}, notes=(), timings={}, seconds=0.0)
    print("stored", flush=True)
"""


@pytest.mark.parametrize("kill_at", [0, 3, 5])
def test_kill_minus_nine_leaves_nothing_half_and_the_next_run_resumes(tmp_path: Path, kill_at: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "cache"), "1"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == str(kill_at):
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not any((tmp_path / "cache" / "store").iterdir())
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.split()
    assert lines[-1] == "stored"
    assert lines[0] != "0"
    (entry,) = Store(tmp_path / "cache").entries()
    assert sorted(path.name for path in entry.folder.iterdir()) == [f"file{index}" for index in range(6)]
    assert json.loads((entry.folder.parent / "meta.json").read_text())["digest"] == sha256_tree(entry.folder)
