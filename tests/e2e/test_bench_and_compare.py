"""`edgeft bench` and `edgeft compare` with real processes, few of them: what was measured hangs together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

PROCESSES_OF_A_ROUND = 2


def test_a_bundle_is_measured_in_real_processes(tiny_bundle: Path, edgeft: Callable[..., Any]) -> None:
    ran = edgeft("bench", tiny_bundle, "--processes", "1", "--samples", "6")
    assert ran.code == 0, ran.stderr
    found = ran.json["bench"]
    assert (found["model"]["samples"], found["end_to_end"]["samples"]) == (6, 6)
    assert found["inputs"] == "golden.npy"
    assert all(sample > 0 for kind in ("model", "end_to_end") for sample in found[kind]["samples_ms"][0])
    assert found["throughput_per_s"] > 0
    assert found["cpu_share"] > 0
    assert found["peak_rss_bytes"] >= found["base_rss_bytes"] > 0
    assert found["instructions"] is None or found["instructions"] > 0
    assert found["energy_j"] is None or found["energy_j"] >= 0


def test_a_model_is_compared_in_real_processes(tiny_graph: Path, tmp_path: Path, edgeft: Callable[..., Any]) -> None:
    junit = tmp_path / "gates.xml"
    ran = edgeft("compare", tiny_graph, tiny_graph, "--rounds", "3", "--max-slowdown", "900%", "--junit", junit)
    latency = ran.json["latency"]
    assert ran.code == ran.json["exit_code"]  # a verdict on a clock is not for a test to demand
    assert latency["rounds"] in {3, 6}
    for arm in ("base", "new"):
        assert len(latency[arm]["rounds_ms"]) == PROCESSES_OF_A_ROUND * latency["rounds"]
        assert latency[arm]["samples"] == sum(map(len, latency[arm]["rounds_ms"]))
    low, high = latency["interval"]
    assert low <= latency["ratio"] <= high
    root = ET.parse(junit).getroot()  # noqa: S314 - our own document
    assert (root.get("tests"), root.get("failures")) == ("1", str(int(ran.code == 6)))


@pytest.mark.parametrize("verb", [("bench",), ("compare", "MODEL")])
def test_a_real_process_that_fails_is_named(
    verb: tuple[str, ...], tmp_path: Path, edgeft: Callable[..., Any], tiny_graph: Path
) -> None:
    """The inputs are read by the timed process alone."""
    models = [tiny_graph if word == "MODEL" else word for word in verb]
    ran = edgeft(*models, tiny_graph, "--input", tmp_path / "gone.npz")
    assert (ran.code, ran.json["status"]) == (4, "error")
    assert "gone.npz" in ran.json["message"]
