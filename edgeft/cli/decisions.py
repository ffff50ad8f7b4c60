"""What `edgeft predict` and `edgeft verify` print."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeft.runtime.predictor import Prediction

STDIN = "-"


def inputs(given: Sequence[str], *, texts: bool) -> "Iterator[Path | str | tuple[str, str]]":
    """Yield image paths, or texts; `-` stands for the lines of stdin."""
    for item in given:
        lines = [line.rstrip("\r\n") for line in sys.stdin] if item == STDIN else [item]
        for line in lines:
            first, tab, second = line.partition("\t")
            yield ((first, second) if tab else first) if texts else Path(line)


def decision_line(source: "Path | str | tuple[str, str]", found: "Prediction") -> str:
    """Return path or text, label and score, separated by tabs, and REVIEW where a person should look."""
    named = source if isinstance(source, tuple) else (str(source),)
    shown = " | ".join(" ".join(part.split()) if found.path is None else part for part in named)
    return f"{shown}\t{found.label}\t{found.scores[found.index]:.4f}" + ("\tREVIEW" if found.review else "")


def decision_object(
    source: "Path | str | tuple[str, str]", found: "Prediction", classes: Sequence[str]
) -> dict[str, object]:
    """Return one entry of `predict --json`; scores by class name, in class order."""
    return {
        **({"text": source} if found.path is None else {"path": str(found.path)}),
        **found.to_json(classes),
    }


def check_text(found: Mapping[str, Any]) -> str:
    """Return what a passed check proved."""
    inputs_equal = "to the same inputs" if found["raw_inputs_equal"] else "to nearly the same pixels"
    golden = (
        f"{found['golden_rows']} golden vectors replayed, {found['raw_rows']} of them raw {inputs_equal}; "
        f"scores differ by at most {found['max_abs_score_error']:.2g} (allowed {found['atol']:.2g})"
    )
    lines = [
        f"{found['bundle']}: ok",
        *([f"device  {found['device']}"] if "device" in found else []),
        f"bundle  {found['name']}, {found['precision']} for {found['target']}, content {found['content_digest']}",
        f"files   {found['files']} with the digests that the manifest names",
        f"golden  {golden}",
        *(["signed  by the holder of the key that was given"] if found["signature"] == "verified" else []),
    ]
    return "\n".join([*lines, *(f"note    {text}" for text in found["notes"])])
