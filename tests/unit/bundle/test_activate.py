"""The device's working bundle: switched whole, kept, taken back, and there after a kill at any step."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeft.bundle.activate import activate, rollback
from edgeft.bundle.check import check
from edgeft.bundle.pack import Parts, pack
from edgeft.cli.main import app
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.runtime import load

RUNNER = CliRunner()
KILLED = 137
STEPS = {"open", "os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@pytest.fixture
def bundles(tmp_path: Path, tiny_parts: Parts) -> list[Path]:
    """Four bundles of one name with different contents."""
    made = []
    for index in range(4):
        pack(tmp_path / f"b{index}", replace(tiny_parts, measurements={"build": index}))
        made.append(tmp_path / f"b{index}")
    return made


def running(root: Path) -> int:
    """Load what is active, as a device does, and return which build it is."""
    number: int = load(root / "tiny" / "current").manifest.values["measurements"]["build"]
    return number


def held(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "tiny").iterdir())


def versions(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "tiny" / "versions").iterdir())


def test_the_first_the_next_and_back(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    first = activate(bundles[0], root)
    assert (first.before, first.changed, first.kept) == (None, True, ())
    assert first.version.startswith("000001-")
    second = activate(bundles[1], root)
    assert (second.before, second.kept, running(root)) == (first.version, (first.version,), 1)
    back = rollback("tiny", root)
    assert (back.version, back.before, running(root)) == (first.version, second.version, 0)
    with pytest.raises(UsageError, match="only version"):
        rollback("tiny", root)
    assert running(root) == 0


@pytest.mark.parametrize("name", ["other", "../root/tiny", "./tiny", ".", ""])
def test_only_a_name_is_gone_back_to(name: str, tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    activate(bundles[0], root)
    activate(bundles[1], root)
    with pytest.raises(UsageError, match=r"no bundle .* is active") as caught:
        rollback(name, root)
    assert caught.value.hint == "active here: tiny"
    assert running(root) == 1


def test_what_was_taken_back_is_not_gone_back_to(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    for bundle in bundles[:2]:
        activate(bundle, root)
    rollback("tiny", root)
    third = activate(bundles[2], root)
    assert len(versions(root)) == 2
    assert rollback("tiny", root).before == third.version
    assert running(root) == 0


def test_as_many_as_asked_for_are_kept(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    for bundle in bundles:
        found = activate(bundle, root, keep=2)
    assert [name.split("-")[0] for name in versions(root)] == ["000002", "000003", "000004"]
    assert [name.split("-")[0] for name in found.kept] == ["000003", "000002"]


def test_the_same_bundle_again_changes_nothing(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    first = activate(bundles[0], root)
    again = activate(bundles[0], root)
    assert (again.version, again.changed, versions(root)) == (first.version, False, [first.version])
    assert held(root) == ["current", "lock", "versions"]


def test_a_damaged_bundle_leaves_the_old_one(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    activate(bundles[0], root)
    model = bundles[1] / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        activate(bundles[1], root)
    assert (running(root), len(versions(root))) == (0, 1)
    assert not (root / "tiny" / "incoming").exists()


def test_a_current_version_that_is_damaged_is_replaced_by_the_same_bundle(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    activate(bundles[0], root)
    model = root / "tiny" / "current" / "model.onnx"
    model.write_bytes(b"rot")
    assert activate(bundles[0], root).changed
    check(root / "tiny" / "current")


def test_a_damaged_earlier_version_is_not_gone_back_to(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    first = activate(bundles[0], root)
    activate(bundles[1], root)
    (root / "tiny" / "versions" / first.version / "golden.npz").write_bytes(b"rot")
    with pytest.raises(IntegrityError, match=r"golden\.npz"):
        rollback("tiny", root)
    assert running(root) == 1


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, tiny_parts: Parts) -> None:
    pack(tmp_path / "evil", replace(tiny_parts, name="../../etc"))
    with pytest.raises(IntegrityError, match="name"):
        activate(tmp_path / "evil", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_an_unsigned_bundle_where_a_signature_is_required(tmp_path: Path, bundles: list[Path]) -> None:
    key = tmp_path / "k.pub"
    key.write_text("no key")
    with pytest.raises(IntegrityError, match="not signed"):
        activate(bundles[0], tmp_path / "root", public_key=key)
    assert not (tmp_path / "root").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, bundles: list[Path]) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DeviceError, match="cannot be written") as error:
        activate(bundles[0], tmp_path / "root")
    assert "--root" in str(error.value.hint)


def killed_at(step: int, bundle: Path | None, root: Path) -> bool:
    """Activate (or roll back, without a bundle) in a child that dies at its n-th step; False where it had fewer."""
    child = os.fork()
    if child == 0:
        count = 0

        def die(event: str, args: tuple[object, ...]) -> None:
            nonlocal count
            if event in STEPS and str(root) in str(args[0]):
                count += 1
                if count == step:
                    os._exit(KILLED)

        sys.addaudithook(die)
        try:
            if bundle is None:
                rollback("tiny", root)
            else:
                activate(bundle, root, keep=1)
        except BaseException:  # noqa: BLE001 - the parent only sees the code
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, KILLED}
    return code == KILLED


@pytest.mark.parametrize("back", [False, True])
def test_a_kill_at_any_step_leaves_one_that_works(tmp_path: Path, bundles: list[Path], *, back: bool) -> None:
    start = tmp_path / "start"
    for bundle in bundles[:3]:
        activate(bundle, start, keep=1)
    step, seen = 1, set()
    while True:
        root = tmp_path / f"root{step}"
        shutil.copytree(start, root, symlinks=True)
        died = killed_at(step, None if back else bundles[3], root)
        check(root / "tiny" / "current")
        seen.add(running(root))
        assert running(root) in ({2, 1} if back else {2, 3})
        assert activate(bundles[3], root, keep=1).check.name == "tiny"
        assert (running(root), held(root)) == (3, ["current", "lock", "versions"])
        assert rollback("tiny", root).changed
        assert running(root) in {1, 2}
        shutil.rmtree(root)
        if not died:
            break
        step += 1
    assert seen == ({2, 1} if back else {2, 3})
    assert step > (5 if back else 20)


def test_the_verbs(tmp_path: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    done = RUNNER.invoke(app, ["activate", str(bundles[0]), "--root", str(root), "--json"])
    told = json.loads(done.stdout)
    assert (told["exit_code"], told["changed"], told["check"]["name"]) == (0, True, "tiny")
    monkeypatch.setenv("EDGEFT_ROOT", str(root))
    text = RUNNER.invoke(app, ["activate", str(bundles[1]), "--keep", "2"]).stdout
    assert f"({told['version']} before)" in text
    assert RUNNER.invoke(app, ["rollback", "tiny"]).exit_code == 0
    assert running(root) == 0
    for arguments, words in ((["rollback", "tiny"], "only version"), (["rollback", "other"], "active here: tiny")):
        failed = RUNNER.invoke(app, arguments)
        assert (failed.exit_code, words in failed.stderr) == (2, True)


def test_a_lost_link_costs_no_version(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "root"
    for bundle in bundles[:2]:
        activate(bundle, root)
    (root / "tiny" / "current").unlink()
    found = activate(bundles[2], root)
    assert found.version.startswith("000003-")
    assert len(versions(root)) == 3
    assert rollback("tiny", root).version.startswith("000002-")


def test_a_folder_in_the_links_place_is_refused(tmp_path: Path, bundles: list[Path]) -> None:
    (tmp_path / "root" / "tiny" / "current").mkdir(parents=True)
    with pytest.raises(DeviceError, match="no link"):
        activate(bundles[0], tmp_path / "root")


def test_what_is_told_can_be_opened(tmp_path: Path, bundles: list[Path]) -> None:
    assert check(Path(activate(bundles[0], tmp_path / "root").check.bundle)).name == "tiny"
