import copy
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECORDS = Path(__file__).parent / "records"

# What a class or file may really be called: markup, Chinese, quotes, right-to-left override, NUL, a lone surrogate.
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '缺陷"><img src=x onerror=alert(2)>',
    "a|b `c` *d* [e](http://evil.example/)",
    "rtl\u202egnp.exe",
    "nul\x00esc\x1b]8",
    "not utf-8 \udcff",
    "]]></system-out></style></title></pre>",
    "&amp;&lt;",
)


@pytest.fixture
def complete() -> dict[str, Any]:
    """Give a whole record of a two-class build that passed."""
    return json.loads((RECORDS / "complete.json").read_text(encoding="utf-8"))


@pytest.fixture
def minimal() -> dict[str, Any]:
    """Give the least that a run which stopped in the data stage leaves."""
    return {"schema": 1, "run": "r1", "status": "failed", "exit_code": 3, "recipe": {}, "recipe_text": "", "gates": []}


@pytest.fixture
def hostile(complete: dict[str, Any]) -> dict[str, Any]:
    """Give the complete record with every free text replaced by something that tries to break out."""
    record = copy.deepcopy(complete)
    names = dict(zip(record["data"]["classes"], HOSTILE_NAMES[:2], strict=True))
    replaced = json.loads(json.dumps(record), object_pairs_hook=lambda pairs: _renamed(dict(pairs), names))
    for index, flip in enumerate(replaced["verify"]["flips"]):
        flip["path"] = HOSTILE_NAMES[index % len(HOSTILE_NAMES)]
        flip["thumbnail"] = ("../../../etc/passwd", "/etc/passwd", "flips/\x00.png", "flips")[index % 4]
    for index, gate in enumerate(replaced["gates"]):
        gate["name"], gate["detail"] = HOSTILE_NAMES[index], HOSTILE_NAMES[-index - 1]
    replaced["recipe_text"] = "\n".join(HOSTILE_NAMES)
    replaced["recipe"]["bundle"]["name"] = HOSTILE_NAMES[0]
    replaced["data"]["audit"][0].update(message=HOSTILE_NAMES[6], items=list(HOSTILE_NAMES), check=HOSTILE_NAMES[1])
    replaced["data"]["quarantined"] = [{"path": name, "split": name, "reason": name} for name in HOSTILE_NAMES]
    replaced["stages"][0].update(notes=list(HOSTILE_NAMES), reason=HOSTILE_NAMES[0], key=HOSTILE_NAMES[1])
    replaced["lint"][0].update(node=HOSTILE_NAMES[0], reason=HOSTILE_NAMES[5], mend=HOSTILE_NAMES[2])
    replaced["machine"] = {name: name for name in HOSTILE_NAMES}
    replaced["versions"] = {name: name for name in HOSTILE_NAMES}
    return replaced


def _renamed(value: object, names: dict[str, str]) -> object:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture
def png() -> bytes:
    """Give a picture of one grey pixel, made by hand from the PNG specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00\x80")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def verify_folder(tmp_path: Path, png: bytes) -> Callable[[dict[str, Any]], Path]:
    """Make a verify folder that holds the thumbnails a record names."""

    def make(record: dict[str, Any]) -> Path:
        folder = tmp_path / "verify"
        (folder / "flips").mkdir(parents=True)
        for flip in record["verify"]["flips"]:
            (folder / flip["thumbnail"]).write_bytes(png)
        return folder

    return make
