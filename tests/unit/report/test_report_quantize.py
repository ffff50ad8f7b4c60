"""The report of `edgeft quantize`: what was measured, and nothing of what a build would show."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from edgeft.report.html import render

NOWHERE = Path("/nowhere")


@pytest.fixture
def quantized(complete: dict[str, Any]) -> dict[str, Any]:
    """The record of a quantization whose int8 ships, its shared parts taken from the build's."""
    shared = ("candidates", "choice", "latency", "lint", "machine", "versions", "gates", "run", "status", "exit_code")
    return {
        **{key: copy.deepcopy(complete[key]) for key in shared},
        "kind": "quantize",
        "name": "mynet",
        "verdict": "int8 ships because it is faster",
        "linted": "int8",
        "source": {"path": "/models/mynet.onnx", "sha256": "ab" * 32, "size_bytes": 9, "opset": 11, "opset_used": 18},
        "calibration": {"source": "calib", "n": 256, "labelled": False},
        "evaluation": {"source": "held-out.npz", "n": 640, "labelled": True, "held_out": True},
        "settings": {"max_drop_pp": 1.0, "method": "auto"},
        "notes": ["a thing to know"],
    }


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', html)


def test_only_what_applies_is_there(quantized: dict[str, Any]) -> None:
    html = render(quantized, NOWHERE)
    assert sections(html) == ["gates", "candidates", "latency", "lint", "source", "machine"]
    assert re.findall(r'href="#([a-z]+)"', html) == sections(html)
    for words in ("mynet", "edgeft quantize report", "int8 ships because it is faster.", "11, brought to 18"):
        assert words in html
    assert "Candidates on held-out.npz" in html
    assert "a thing to know" in html
    for other in ("validation split", "test split", "No training", "edgeft build"):
        assert other not in html


def test_what_was_not_measured_is_absent(quantized: dict[str, Any]) -> None:
    del quantized["latency"]
    quantized["gates"] = []
    quantized["choice"]["latency"] = {}
    for item in quantized["candidates"]["candidates"]:
        item["validation"] = {"n": 640, "agreement": 0.99, "mean_abs_logit_error": 0.1, "sqnr_db": None}
    html = render(quantized, NOWHERE)
    assert sections(html) == ["candidates", "lint", "source", "machine"]
    for column in ("holds margin", "median latency", "drop ("):
        assert column not in html
    assert "accuracy was not measured" in html
    assert "not recorded" not in html.partition('id="candidates"')[2].partition("</section>")[0]


def test_what_stays_float_is_told_of_int8_even_where_fp32_ships(quantized: dict[str, Any]) -> None:
    quantized["choice"]["chosen"] = "fp32"
    quantized["latency"]["candidate"] = "int8"
    html = render(quantized, NOWHERE)
    assert "Of int8, which does not ship" in html
    assert "speed of int8 against fp32" in html


def test_any_part_may_be_missing_or_hostile(quantized: dict[str, Any]) -> None:
    for key in list(quantized):
        for odd in (None, [], "<script>", {"n": "<script>"}, 3):
            html = render({**quantized, key: odd} if key != "kind" else quantized, NOWHERE)
            assert "<script>" not in html
