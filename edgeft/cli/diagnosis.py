"""What `edgeft doctor` finds: the install, the machine, and what both mean for a build and for int8."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeft import __version__
from edgeft.cli.packages import BASE, Package, pip_command, required
from edgeft.cli.tables import size, table

_DOT_PRODUCT = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
_EXACT = "measured: sums of int8 products are exact"
_SATURATING = (
    "measured: two neighbouring uint8 x int8 products are added in saturating 16 bits; "
    "edgeft's pair-safe weights stay exact here, other tools' full-range int8 files may not"
)
_SLOW = "; no dot product instruction is known for this processor, so expect int8 to gain less"
_LITTLE_DISK = 2_000_000_000
_DEVELOPERS = "dev"
"""The extra that only edgeft's own developers need."""
_TRAINING = "train"


def diagnose(cache: Path) -> dict[str, Any]:
    """Return everything `doctor` shows, as JSON values; `problems` is empty where edgeft can run."""
    from edgeft.core import machine

    packages = tuple(package for package in required() if package.extra != _DEVELOPERS)
    facts = machine.facts()
    problems = _problems(packages, cache)
    return {
        "status": "error" if problems else "ok",
        "exit_code": 4 if problems else 0,
        "problems": problems,
        "edgeft": __version__,
        "python": {"version": sys.version.split()[0], "executable": sys.executable},
        "packages": [package.to_json() for package in packages],
        "missing": _missing(packages),
        "machine": facts,
        "int8": _int8(facts["isa"] if isinstance(facts["isa"], list) else []),
        "memory_available_bytes": _available_memory(),
        "cache": {"path": str(cache), "free_bytes": shutil.disk_usage(_existing(cache)).free},
        "exporters": _exporters(),
        "broken": _broken(),
    }


def _int8(isa: Sequence[object]) -> str:
    try:
        from edgeft.runtime.saturation import saturates
    except ImportError as error:
        return f"not measured: {error}"
    return int8_arithmetic(isa, saturating=saturates())


def int8_arithmetic(isa: Sequence[object], *, saturating: bool) -> str:
    """Return what this processor does with uint8 x int8 sums (the pair rule).

    Args:
        isa: its vector extensions.
        saturating: what `edgeft.runtime.saturation` measured.
    """
    return (_SATURATING if saturating else _EXACT) + ("" if set(isa) & _DOT_PRODUCT else _SLOW)


def diagnosis_text(found: Mapping[str, Any]) -> str:
    """Return `diagnose`'s result for a person."""
    machine = found["machine"]
    facts = [
        ("edgeft", f"{found['edgeft']} on Python {found['python']['version']} ({found['python']['executable']})"),
        ("cpu", f"{machine['cpu']}, {machine['cores']} cores"),
        ("isa", " ".join(machine["isa"]) or "none of the known vector extensions"),
        ("int8", found["int8"]),
        ("memory", f"{size(machine['memory_bytes'])}, {size(found['memory_available_bytes'])} available"),
        ("cache", f"{found['cache']['path']}, {size(found['cache']['free_bytes'])} free"),
    ]
    rows = [
        (package["extra"], package["name"], package["wanted"], package["installed"] or "missing", _state(package))
        for package in found["packages"]
    ]
    exporters = [(item["name"], ability(item), item["reason"]) for item in found["exporters"]]
    parts = ["\n".join(f"{name:<7} {value}" for name, value in facts)]
    parts.append(table(("extra", "package", "wanted", "installed", ""), rows) if rows else "no package metadata")
    parts.append(table(("exporter", "", ""), exporters) if exporters else "no exporter is installed")
    parts += [
        f"{item['extra']}: missing {', '.join(item['packages'])}\n  {item['command']}" for item in found["missing"]
    ]
    parts += [
        f"entry point {item['name']} ({item['group']}) cannot be used: {item['reason']}" for item in found["broken"]
    ]
    parts.append("\n".join(f"problem: {text}" for text in found["problems"]) or _abilities(found))
    return "\n\n".join(parts)


def ability(target: Mapping[str, Any]) -> str:
    """Return in words what this machine can do for a target."""
    return "runs here" if target["runs"] else "makes files, runs elsewhere" if target["works"] else "cannot be used"


def _abilities(found: Mapping[str, Any]) -> str:
    if any(item["extra"] == _TRAINING for item in found["missing"]):
        return f"verify and predict can run here; build needs {pip_command(_TRAINING)}"
    return "every verb can run here"


def _state(package: Mapping[str, Any]) -> str:
    return "" if package["fits"] or package["installed"] is None else "not within the bounds"


def _problems(packages: Sequence[Package], cache: Path) -> list[str]:
    if not packages:
        return [
            "edgeft runs from a source tree without package metadata, so no exporter can be found: pip install -e ."
        ]
    problems = [
        f"{package.name} {package.installed or 'is missing'}, wanted {package.wanted}: {pip_command(BASE)}"
        for package in packages
        if package.extra == BASE and not package.fits
    ]
    if any(item["extra"] == _TRAINING for item in _missing(packages)):
        return problems  # nothing is built here, so nothing needs to be written
    place = _existing(cache)
    if not os.access(place, os.W_OK):
        problems.append(f"{place} cannot be written: use --cache to keep finished stages elsewhere")
    if (free := shutil.disk_usage(place).free) < _LITTLE_DISK:
        problems.append(f"{place} has {size(free)} free; a build needs about {size(_LITTLE_DISK)}: use --cache")
    return problems


def _missing(packages: Sequence[Package]) -> list[dict[str, object]]:
    extras = dict.fromkeys(package.extra for package in packages if not package.fits)
    return [
        {
            "extra": extra,
            "packages": [package.name for package in packages if package.extra == extra and not package.fits],
            "command": pip_command(extra),
        }
        for extra in extras
    ]


def _exporters() -> list[dict[str, object]]:
    from edgeft.pipeline.targets import targets

    return [{"name": item.name, "works": item.works, "runs": item.runs, "reason": item.state} for item in targets()]


def _broken() -> list[dict[str, object]]:
    from edgeft import catalog

    return [{"group": item.group, "name": item.name, "reason": item.reason} for item in catalog.broken()]


def _existing(path: Path) -> Path:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def _available_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
