"""The devices that the user named: where they are kept, and what `edgeft devices` does and prints."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from edgeft.cli.tables import size, table
from edgeft.cli.terminal import print_json
from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.pipeline.device.address import LOCAL, Device
from edgeft.pipeline.device.needs import device_facts, lacks
from edgeft.pipeline.device.registry import Profile, changed, find, load, now, require_name, save
from edgeft.pipeline.device.registry import address_of as address_among

Found = dict[str, Any]


def devices_file() -> Path:
    """Return where the devices are kept: edgeft/devices.yaml below XDG_CONFIG_HOME, or below ~/.config."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".config") / "edgeft" / "devices.yaml"


def address_of(text: str) -> str:
    """Return local or ssh://... for what was given with --device: that itself, or a device's name.

    Raises:
        UsageError: no device is called so; the hint names the nearest.
    """
    return text if text == LOCAL else address_among(text, load(devices_file()))


def added(file: Path, name: str, address: str, note: str, ssh_config: Path | None) -> Found:
    """Connect to `address` and keep it.

    Raises:
        UsageError: the name is taken or odd, or the address is none.
        DeviceError: it cannot be reached, or lacks something, or the file cannot be written.
    """
    known = load(file)
    require_name(name, known)
    facts = _ask(address, ssh_config)
    if missing := lacks(facts["libraries"]):
        raise DeviceError(
            f"{address}: {facts['executable']} there lacks {', '.join(missing)}",
            hint="install it there, or name another interpreter: ssh://host/path/to/python",
        )
    save(file, {**known, name: Profile(address=address, note=note, seen=now(), facts=facts)})
    return _answer(file, [_entry(name, address, note, facts, state="added")])


def listed(file: Path) -> Found:
    """Return this machine and every device that is kept."""
    kept = [_entry(name, each.address, each.note, each.facts, seen=each.seen) for name, each in load(file).items()]
    return _answer(file, [_entry(LOCAL, LOCAL, "this machine", device_facts()), *kept])


def checked(file: Path, name: str | None, ssh_config: Path | None, *, update: bool) -> Found:
    """Ask a device, or all of them, what it is now, and compare with what is kept.

    Raises:
        UsageError: no device is called so.
    """
    known = load(file)
    if name == LOCAL:
        return _answer(file, [_judged(LOCAL, Profile(address=LOCAL), device_facts())])
    wanted = known if name is None else {name: find(name, known)}
    found = []
    for each, profile in wanted.items():
        try:
            facts = _ask(profile.address, ssh_config)
        except EdgeftError as error:
            lost = _entry(each, profile.address, profile.note, profile.facts, state="unreachable", seen=profile.seen)
            found.append({**lost, "error": error.message, "hint": error.hint})
            continue
        found.append(_judged(each, profile, facts))
        if update:
            known[each] = profile.model_copy(update={"seen": now(), "facts": facts})
    if update:
        save(file, known)
    return _answer(file, found)


def removed(file: Path, name: str) -> Found:
    """Forget `name`.

    Raises:
        UsageError: no device is called so.
    """
    known = load(file)
    gone = find(name, known)
    save(file, {each: profile for each, profile in known.items() if each != name})
    return _answer(file, [_entry(name, gone.address, gone.note, gone.facts, state="removed", seen=gone.seen)])


def tell(found: Found, *, as_json: bool) -> int:
    """Print what a verb found and return its exit code."""
    typer.echo(devices_text(found)) if not as_json else print_json(found)
    return int(found["exit_code"])


def devices_text(found: Mapping[str, Any]) -> str:
    """Return a table of devices, and below it what changed or is wrong."""
    rows = [
        (each["name"], each["state"], each["address"], *_columns(each["facts"]), each["seen"], each["note"])
        for each in found["devices"]
    ]
    lines = [
        *(
            f"{each['name']}: {one['fact']} was {one['was']}, is {one['is']}"
            for each in found["devices"]
            for one in each["changed"]
        ),
        *(f"{each['name']}: lacks {what}" for each in found["devices"] for what in each["lacks"]),
        *(
            f"{each['name']}: {each['error']}" + (f"\n  hint: {each['hint']}" if each["hint"] else "")
            for each in found["devices"]
            if "error" in each
        ),
    ]
    if not rows:
        return f"no devices in {found['file']}: edgeft devices add NAME ssh://user@host"
    headings = ("name", "state", "address", "processor", "cores", "memory", "runtime", "gpu", "seen", "note")
    shown = [index for index in range(len(headings)) if any(row[index] for row in rows)]
    cells = [[row[index] for index in shown] for row in rows]
    return "\n".join([table([headings[index] for index in shown], cells, right=("cores", "memory")), *lines])


def _columns(facts: Mapping[str, Any]) -> tuple[str, ...]:
    runtime = (facts.get("libraries") or {}).get("onnxruntime")
    memory = facts.get("memory_bytes")
    return (
        str(facts.get("cpu", "-")),
        str(facts.get("cores", "-")),
        "-" if memory is None else size(memory),
        f"onnxruntime {runtime}" if runtime else "-",
        str(facts.get("gpu") or "-"),
    )


def _ask(address: str, ssh_config: Path | None) -> Found:
    from edgeft.pipeline.device.remote import facts

    return facts(Device.parse(address, ssh_config))


def _judged(name: str, profile: Profile, facts: Found) -> Found:
    differs = changed(profile.facts, facts) if profile.facts else []
    missing = lacks(facts["libraries"])
    state = "lacking" if missing else "changed" if differs else "ok"
    entry = _entry(name, profile.address, profile.note, facts, state=state, seen=profile.seen)
    return {**entry, "changed": differs, "lacks": missing}


def _entry(name: str, address: str, note: str, facts: Mapping[str, Any], *, state: str = "", seen: str = "") -> Found:
    head: Found = {"name": name, "address": address, "note": note, "state": state, "seen": seen}
    return {**head, "facts": dict(facts), "changed": [], "lacks": []}


def _answer(file: Path, entries: list[Found]) -> Found:
    bad = any(entry["state"] in {"unreachable", "lacking"} for entry in entries)
    code = DeviceError.exit_code if bad else 0
    return {"status": "error" if bad else "ok", "exit_code": code, "file": str(file), "devices": entries}
