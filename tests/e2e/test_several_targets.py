"""One build for several targets: a bundle each, from one calibration, and a report that compares them.

The images are of three colours and the network has no pretrained weights: what it is worth does not matter here.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeft.bundle.check import check
from edgeft.cli.main import app
from edgeft.runtime.saturation import saturates

RUNNER = CliRunner()
UNTIMED = ("tensorrt",) if saturates() else ("onnx-arm64", "tensorrt")  # full range is refused where sums saturate
OTHERS = ("openvino", *UNTIMED)
RECIPE = """\
version: 1
data: {{source: {images}}}
model: {{base: timm/test_resnet, weights: null, input: {{height: 32, width: 32, resize: squash}}}}
finetune: {{method: full, epochs: 1}}
compress: {{calib_images: 16, method: gptq}}
lower: {{targets: [onnx, {others}]}}
verify: {{accuracy: {{max_drop_pp: 90}}, latency: {{vs_fp32: null, rounds: [3], samples_per_round: 5}}}}
bundle: {{name: colours}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    (folder / "recipe.yaml").write_text(RECIPE.format(images=tiny_images, others=", ".join(OTHERS)))
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    done = RUNNER.invoke(app, ["build", str(folder), "--json"])
    assert done.exit_code in {0, 5}, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_each_target_has_a_bundle_with_its_own_files_that_verifies(told: dict[str, Any]) -> None:
    ends = {item["target"]: Path(item["bundle"]) for item in told["targets"]}
    assert list(ends) == ["onnx", *OTHERS]
    for target, bundle in ends.items():
        found = check(bundle)
        assert found.target == target
        assert found.name == ("colours" if target == "onnx" else f"colours-{target}")
    assert {"model.xml", "model.bin"} <= {path.name for path in ends["openvino"].iterdir()}
    assert "build_engine.sh" in {path.name for path in ends["tensorrt"].iterdir()}


def test_what_runs_here_is_timed_in_its_own_runtime_and_what_does_not_says_so(told: dict[str, Any]) -> None:
    rows = {item["target"]: item for item in told["targets"]}
    assert all(rows[name]["median_ms"] > 0 for name in ("onnx", "openvino"))
    assert all(rows[name]["median_ms"] is None for name in UNTIMED)
    assert rows["tensorrt"]["not_timed"] == "unverified on hardware"
    assert rows["openvino"]["not_timed"] is None
    names = {gate["name"] for gate in told["gates"]}
    assert {"accuracy", "openvino: accuracy", "tensorrt: accuracy"} <= names
    ships = rows["openvino"]["ships"]  # on a busy machine float may win
    assert f"openvino: parity {ships} > runtime" in names


def test_the_network_was_observed_once(folder: Path, told: dict[str, Any]) -> None:
    assert {stage["name"] for stage in told["stages"]} >= {"compress", *(f"compress-{name}" for name in OTHERS)}
    again = json.loads(RUNNER.invoke(app, ["build", str(folder), "--no-latency", "--json"]).stdout)
    assert all(stage["reused"] for stage in again["stages"])


def test_the_report_compares_them(told: dict[str, Any]) -> None:
    page = Path(told["report"]).read_text()
    assert 'id="targets"' in page
    assert f"Each of the {1 + len(OTHERS)} targets has a bundle of its own." in page
    assert f"{', '.join(UNTIMED)}: unverified on hardware." in page
    other = Path(told["targets"][1]["bundle"]) / "report.json"
    assert json.loads(other.read_text())["bundle"] == told["targets"][1]["bundle"]


def test_a_target_that_does_not_run_here_cannot_come_first(folder: Path) -> None:
    done = RUNNER.invoke(app, ["plan", str(folder), "--set", "lower.targets=[tensorrt, onnx]"])
    assert done.exit_code == 2
    assert "tensorrt comes first" in done.stderr


def test_half_precision_ships_where_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    wanted = ["--set", "lower.targets=[onnx, openvino]", "--set", "compress={precision: fp16}"]
    more = ["--set", "verify.latency.samples_per_round=5", "--no-latency", "--out", str(tmp_path / "half"), "--json"]
    done = RUNNER.invoke(app, ["build", str(folder), *wanted, *more])
    assert done.exit_code in {0, 5}, done.output
    rows = {item["target"]: item for item in json.loads(done.stdout)["targets"]}
    assert set(rows) == {"onnx", "openvino"}
    for item in rows.values():
        assert check(Path(item["bundle"])).precision == item["precision"]
