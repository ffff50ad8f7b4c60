"""What `edgeft inspect NEW.onnx --against BASE.onnx` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeft.cli.tables import number, table

_SHOWN = 10


def parted_text(found: Mapping[str, Any]) -> str:
    """Return the findings, and the layers that are furthest from the base on their own."""
    layers = found["layers"]
    furthest = sorted(layers, key=lambda layer: _order(layer["alone"]["sqnr_db"]))[:_SHOWN]
    last = layers[-1]["drifted"]
    lines = [
        f"{found['new']} against {found['base']}, {len(layers)} tensors on {found['n']} inputs",
        f"output    {_decibels(last['sqnr_db'])}, cosine {last['cosine']:.6f}",
        f"runtime   {_decibels(found['runtime']['sqnr_db'])} between its fused kernels and operator by operator",
    ]
    if parts := found["split"]:
        causes = ", ".join(
            f"{number(parts[cause])} {cause}" for cause in ("weights", "clipping", "rounding", "runtime")
        )
        lines.append(f"error     {number(parts['total'])} mean absolute, of it: {causes}")
    rows = [
        (
            layer["layer"],
            layer["op"],
            _decibels(layer["alone"]["sqnr_db"]),
            _decibels(layer["drifted"]["sqnr_db"]),
            f"{layer['drifted']['cosine']:.5f}",
            number(layer["drifted"]["p99_abs"]),
        )
        for layer in furthest
    ]
    headings = ("layer", "op", "alone", "drifted", "cosine", "p99 error")
    parts = ["\n".join(lines), table(headings, rows, right=headings[2:]), *_findings(found["findings"])]
    if found["reproducer"]:
        parts.append(f"smallest graph that shows it: {found['reproducer']}")
    return "\n\n".join(parts)


def _findings(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    if not findings:
        return ["no layer is at fault: what differs is rounding as it should be"]
    blocks = []
    for item in findings:
        effect = f"the output goes from {_decibels(item['output_db'])} to {_decibels(item['predicted_db'])}"
        blocks.append(
            f"{item['layer']}: {item['kind']}\n  {item['detail']}\n  mend: {item['advice']}\n  predicted: {effect}"
        )
    return blocks


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"


def _order(value: float | None) -> float:
    return float("inf") if value is None else value
