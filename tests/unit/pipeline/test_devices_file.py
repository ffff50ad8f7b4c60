"""devices.yaml: what is read back, what is refused and with which line, which facts differ."""

from pathlib import Path

import pytest

from edgeft.core.errors import DeviceError, UsageError
from edgeft.pipeline.device.registry import Profile, address_of, changed, find, load, require_name, save

FACTS = {"cpu": "Cortex-A76", "isa": ["asimd", "asimddp"], "cores": 4, "gpu": None, "python": "3.11"}
BOARD = Profile(address="ssh://pi@192.168.1.7", note="line 3", seen="2026-01-02T03:04:05Z", facts=FACTS)


def write(folder: Path, text: str) -> Path:
    (folder / "devices.yaml").write_text(text)
    return folder / "devices.yaml"


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "edgeft" / "devices.yaml"
    known = {"board": BOARD, "a.b_c-1": Profile(address="ssh://h:22/usr/bin/python3", note="é: #1")}
    save(file, known)
    assert load(file) == known
    assert sorted(path.name for path in file.parent.iterdir()) == ["devices.yaml"]
    save(file, {})
    assert load(file) == {}


def test_a_file_by_hand_needs_an_address_only(tmp_path: Path) -> None:
    file = write(tmp_path, "# mine\nboard:\n  address: ssh://pi@board\n")
    assert load(file) == {"board": Profile(address="ssh://pi@board")}
    assert load(write(tmp_path, "# nothing yet\n")) == {}
    assert load(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("board: {adress: ssh://h}", r"line 1: unknown key board\.adress"),
        ("board:\n  note: x", r"line 1: board\.address is missing"),
        ("board:\n  address: pi@board", r"line 2: board\.address: pi@board is no address"),
        ("board:\n  address: 7", r"line 2: board\.address: expected text, found 7"),
        ("board: ssh://h", "line 1: board: expected a mapping"),
        ("board:\n  address: [", "not YAML"),
        ("board: {address: ssh://h}\nboard: {address: ssh://g}", "line 2: 'board' stands twice"),
        ("board: {address: !!python/name:os.system ssh://h}", "tags"),
        ("local: {address: ssh://h}", "'local' cannot name a device"),
        ("../up: {address: ssh://h}", "cannot name a device"),
        ("- board", "expected a mapping"),
        ("#" * (1 << 18) + "\nboard: {}", "at most 262144"),
    ],
)
def test_what_is_odd_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(write(tmp_path, text))


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, "board: {address: ssh://h, notes: x}"))
    assert caught.value.hint == "did you mean 'note'?"


def test_a_file_that_cannot_be_read_or_written_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "devices.yaml").mkdir()
    with pytest.raises(DeviceError, match=r"devices\.yaml: "):
        load(tmp_path / "devices.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="the list of devices"):
        save(tmp_path / "file" / "devices.yaml", {"board": BOARD})


def test_an_unknown_name_lists_the_nearest() -> None:
    known = {"board": BOARD, "bench-pi": BOARD}
    assert find("board", known) is BOARD
    with pytest.raises(UsageError, match="no device is called 'bord'") as caught:
        find("bord", known)
    assert "did you mean board?" in str(caught.value.hint)
    with pytest.raises(UsageError) as caught:
        find("xyz", known)
    assert "known: bench-pi, board" in str(caught.value.hint)


def test_names_stand_for_addresses_and_addresses_for_themselves() -> None:
    known = {"board": BOARD}
    assert address_of("board", known) == "ssh://pi@192.168.1.7"
    assert address_of("ssh://other:2222", known) == "ssh://other:2222"
    assert address_of("local", known) == "local"
    with pytest.raises(UsageError, match="expected local, or ssh://"):
        address_of("pi@board", known)


@pytest.mark.parametrize(
    ("name", "said"),
    [("local", "is this machine"), ("a b", "cannot name"), ("-x", "cannot name"), ("board", "already")],
)
def test_a_new_name_must_be_free_and_plain(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_name(name, {"board": BOARD})


def test_facts_that_differ_are_named_with_both_values() -> None:
    assert changed(FACTS, FACTS) == []
    new = {"cpu": "Cortex-A76", "isa": ["asimd"], "cores": 4, "gpu": None, "memory_bytes": 8, "libraries": {"x": "1"}}
    old = {**FACTS, "libraries": {"x": "0"}}
    assert changed(old, new) == [
        {"fact": "isa", "was": ["asimd", "asimddp"], "is": ["asimd"]},
        {"fact": "memory_bytes", "was": None, "is": 8},
        {"fact": "libraries.x", "was": "0", "is": "1"},
        {"fact": "python", "was": "3.11", "is": None},
    ]
