"""Under which licences a bundle's weights and data came, from the recipe's references and the packages' own files.

What states no licence is listed as "not stated": silence is no permission. Non-commercial terms are flagged, because a
model tuned on such data may inherit them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

_PACKAGE = "package:"
_NON_COMMERCIAL = re.compile(r"(?i)\bNC\b|non-?\s?commercial")
_FILE = re.compile(r"(?i)(^|/)(licen[cs]e|copying)[^/]*$")
_TITLES = (
    (re.compile(r"Apache (?:Software )?License[,\s]+(?:Version )?2\.0"), "Apache-2.0"),
    (re.compile(r"(?i)\bMIT License\b"), "MIT"),
    (re.compile(r"(?i)Attribution-NonCommercial-ShareAlike 4\.0"), "CC-BY-NC-SA-4.0"),
    (re.compile(r"(?i)BSD 3-Clause"), "BSD-3-Clause"),
)
NOT_STATED = "not stated"
DATA, UNLABELLED = "data", "data without labels"
WEIGHTS, STUDENT = "model weights", "student's weights"


@dataclass(frozen=True, slots=True)
class License:
    """The terms of one thing that went into the model.

    Args:
        what: `DATA`, `UNLABELLED`, `WEIGHTS` or `STUDENT`.
        source: as the recipe names it.
        distribution: installed package and version; "" where it came from elsewhere.
        expression: SPDX expression, or `NOT_STATED`.
        texts: its licence files.
    """

    what: str
    source: str
    distribution: str
    expression: str
    texts: tuple[str, ...]

    @property
    def non_commercial(self) -> bool:
        """Whether the terms forbid commercial use."""
        return bool(_NON_COMMERCIAL.search(self.expression))


def license_of(what: str, source: str) -> License:
    """Return the licence of what a recipe names.

    Args:
        what: `DATA`, `UNLABELLED`, `WEIGHTS` or `STUDENT`.
        source: `package:MODULE/path`, or a path or hub name, about which nothing is known.
    """
    module = source.removeprefix(_PACKAGE).partition("/")[0]
    found = _distribution(module) if source.startswith(_PACKAGE) else None
    if found is None:
        return License(what, source, "", NOT_STATED, ())
    files = sorted(str(path) for path in found.files or () if _FILE.search(str(path)))
    texts = tuple(text.strip() for path in files if (text := found.read_text(path) or _located(found, path)))
    named = f"{found.metadata['Name']} {found.version}"
    return License(what, source, named, _expression(found, texts), texts)


def licenses_markdown(name: str, licenses: Sequence[License]) -> str:
    """Return LICENSES.md of the bundle `name`: a summary with warnings first, then every licence text once."""
    lines = [f"# Licences of what {name} was made from", ""]
    for item in licenses:
        origin = f" ({item.distribution})" if item.distribution else ""
        lines.append(f"- **{item.what}**: {item.source}{origin}: {item.expression}")
    lines.append("")
    limited = [item for item in licenses if item.non_commercial]
    lines += [
        f"**Non-commercial: the licence of the {item.what} ({item.expression}) forbids commercial use; a model made "
        "from it may be bound by the same terms. Clear this with the rights holder before you sell or deploy it.**\n"
        for item in limited
    ]
    silent = [item for item in licenses if item.expression == NOT_STATED]
    lines += [
        f"No licence is stated for the {item.what} ({item.source}): you answer for the right to use it.\n"
        for item in silent
    ]
    for text in dict.fromkeys(text for item in licenses for text in item.texts):
        lines += ["---", "", *("    " + line if line else "" for line in text.splitlines()), ""]
    return "\n".join(lines)


def _distribution(module: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(module, ())  # reads every package's file list: about a second
    return metadata.distribution(names[0]) if names else None


def _located(found: metadata.Distribution, path: str) -> str:
    from pathlib import Path

    located = Path(str(found.locate_file(path)))
    return located.read_text(encoding="utf-8", errors="replace") if located.is_file() else ""


def _expression(found: metadata.Distribution, texts: tuple[str, ...]) -> str:
    stated = [text.strip() for key in ("License-Expression", "License") for text in found.metadata.get_all(key) or ()]
    for value in stated:
        if value and value.upper() != "UNKNOWN" and "\n" not in value:
            return str(value)
    classifiers = [item for item in found.metadata.get_all("Classifier") or () if item.startswith("License ::")]
    if classifiers:
        return str(classifiers[0].rpartition(" :: ")[2])
    known = [expression for title, expression in _TITLES if any(title.search(text) for text in texts)]
    return " AND ".join(known) or NOT_STATED
