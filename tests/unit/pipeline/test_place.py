"""Where a build measures: here, or on a device that is asked first."""

from pathlib import Path

import pytest

from edgeft import catalog
from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.events import Event, Message
from edgeft.core.store import Store
from edgeft.pipeline.device import remote
from edgeft.pipeline.device.address import Device
from edgeft.pipeline.device.place import HERE, There, place_of
from edgeft.recipe.load import load_recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import stages

LIBRARIES = {"numpy": "2.0", "onnxruntime": "1.30.0", "pillow": "11.0", "pydantic": "2.9", "tokenizers": None}
TOLD = {"cpu": "A76", "architecture": "aarch64", "isa": ["asimddp"], "cores": 4, "executable": "/usr/bin/python3"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    facts: dict[str, object] = {**TOLD, "memory_bytes": 1, "libraries": dict(LIBRARIES)}
    monkeypatch.setattr(remote, "facts", lambda _: facts)
    return facts


def test_local_is_this_machine_and_an_address_another(tmp_path: Path) -> None:
    assert place_of("local", None) is HERE
    there = place_of("ssh://pi@board", tmp_path)
    assert isinstance(there, There)
    assert (there.device.target, there.device.ssh_config) == ("pi@board", tmp_path)


def test_a_key_holds_the_device_s_processor_and_runtime(told: dict[str, object]) -> None:
    heard: list[Event] = []
    there = There(Device.parse("ssh://board"), heard.append)
    there.require((), texts=False)
    assert there.fingerprint() == {
        "cpu": "A76",
        "architecture": "aarch64",
        "isa": ["asimddp"],
        "cores": 4,
        "runtime": {"runtime": "onnxruntime", "version": "1.30.0"},
    }
    assert there.facts() == {"device": "ssh://board", **told}
    assert heard == [Message("device: ssh://board, A76, 4 cores")]
    assert HERE.fingerprint() is None


def test_a_device_without_tokenizers_takes_no_texts(told: dict[str, object]) -> None:
    del told
    with pytest.raises(DeviceError, match=r"/usr/bin/python3 there lacks tokenizers>=0\.20 \(missing\)"):
        There(Device.parse("ssh://board")).require((), texts=True)


def test_the_choice_is_keyed_with_the_device_and_nothing_else_is(
    project: Path, tmp_path: Path, told: dict[str, object]
) -> None:
    del told
    there = There(Device.parse("ssh://board"))
    recipe, store = load_recipe(project), Store(tmp_path / "cache")
    store.prepare()
    listed = stages(recipe, store)
    there.require(listed, texts=False)
    for fingerprint in (None, there.fingerprint()):
        resolver = Resolver(store, source_digests(recipe, store.cache), 0, device=fingerprint)
        resolver.outputs.update({stage.name: "0" * 64 for stage in listed})
        held = {stage.name: (resolver.resolve(stage).components or {}).get("device") for stage in listed}
        assert {name for name, device in held.items() if device is not None} == {"choose"}
        if fingerprint is not None:
            assert held["choose"] == fingerprint


def test_a_search_on_the_graph_s_parts_is_refused(project: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    store = Store(tmp_path / "cache")
    store.prepare()
    listed = [replace(stage, per_device=stage.name == "compress") for stage in stages(load_recipe(project), store)]
    with pytest.raises(UsageError, match="compress times parts of a graph on this machine alone") as caught:
        There(Device.parse("ssh://board")).require(listed, texts=False)
    assert caught.value.hint == "leave the search out: --set compress.search=false"


def test_a_target_with_a_runtime_of_its_own_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    store.prepare()
    listed = stages(load_recipe(project), store)
    toy = catalog.resolve("toy_room:ToyExporter")
    monkeypatch.setattr(toy, "fingerprint", lambda _: {"runtime": "another"})
    with pytest.raises(UsageError, match="timed there in onnxruntime alone, not as onnx"):
        There(Device.parse("ssh://board")).require(listed, texts=False)
