"""The verbs `bench` and `compare`: options, what goes where, exit codes, and what ends them. No process is timed."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from edgeft.cli.failure import describe
from edgeft.cli.main import app
from edgeft.core.errors import DeviceError
from edgeft.pipeline import bench as bench_module
from edgeft.pipeline import compare as compare_module
from edgeft.runtime.worker import Request, Timing

RUNNER = CliRunner()


class Machine:
    """Answers requests: milliseconds by the name of the file, 10 where none is set; may die at the n-th."""

    def __init__(self) -> None:
        self.levels: dict[str, float] = {}
        self.requests: list[Request] = []
        self.dies_at: int | None = None
        self._rng = np.random.default_rng(0)

    def __call__(self, request: Request) -> Timing:
        self.requests.append(request)
        if len(self.requests) == self.dies_at:
            raise DeviceError(f"timing {request.model}: the process ended with -9 and said: nothing")
        level = self.levels.get(Path(request.model).name, 10.0) * float(np.exp(self._rng.normal(0, 0.003)))
        return Timing(50.0, 20.0, [level] * 6, 90, 30, loop_s=0.06, cpu_s=0.06, grown_bytes=4096, energy_j=0.3)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    simulated = Machine()
    monkeypatch.setattr("edgeft.runtime.bench.instructions", lambda _: 2.5e6)
    monkeypatch.setattr(bench_module, "measure", partial(bench_module.measure, run=simulated))
    monkeypatch.setattr(compare_module, "compare", partial(compare_module.compare, run=simulated))
    return simulated


@pytest.fixture
def files(tmp_path: Path, tiny_graph: Path, tiny_data: Path) -> dict[str, str]:
    """old.onnx, new.onnx of the same weights, worse.onnx that takes red for green, and labelled arrays."""
    model = onnx.load(tiny_graph)
    onnx.save(model, tmp_path / "old.onnx")
    onnx.save(model, tmp_path / "new.onnx")
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, [1, 0, 2]], "weight"))
    onnx.save(model, tmp_path / "worse.onnx")
    rows = [json.loads(line) for line in (tiny_data / "rows.jsonl").read_text().splitlines()]
    pixels = np.load(tiny_data / "pixels.npy")
    np.savez(tmp_path / "data.npz", pixels=pixels, labels=np.array([row["label"] for row in rows]))
    names = {"old": "old.onnx", "new": "new.onnx", "worse": "worse.onnx", "data": "data.npz", "kept": "kept.json"}
    return {name: str(tmp_path / file) for name, file in names.items()}


BENCH_HELP = """--device --mode paced soak --input --period-ms --seconds --processes --samples --threads --spinning
--eval --save-baseline --json"""
COMPARE_HELP = """--max-slowdown 5% --max-drop-pp --eval --metric auroc --input --device --rounds 9,15,25,40
--no-latency --threads --spinning --strict --junit --summary --github --json"""


@pytest.mark.parametrize(
    ("verb", "words", "codes"),
    [
        ("bench", BENCH_HELP, "2 usage; 3 data; 4 environment; 8 a bundle is not what was built"),
        ("compare", COMPARE_HELP, "5 accuracy fails; 6 latency fails; 7 inconclusive under --strict; 8 a bundle or a"),
    ],
)
def test_help_names_every_option_and_exit_code(verb: str, words: str, codes: str) -> None:
    result = RUNNER.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert [word for word in words.split() if word not in text] == []
    assert codes in text


def test_bench_prints_one_object_under_json(files: dict[str, str]) -> None:
    result = RUNNER.invoke(app, ["bench", files["old"], "--processes", "2", "--samples", "6", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["kind"], answer["status"], answer["exit_code"]) == ("bench", "ok", 0)
    assert answer["bench"]["model"]["samples"] == 12
    assert "model" in result.stderr


def test_bench_shows_a_table_and_prints_what_it_measured(files: dict[str, str]) -> None:
    result = RUNNER.invoke(app, ["bench", files["old"], "--processes", "1"])
    assert result.stdout == f"{files['old']}\n"
    figures = ("100.0 inferences/s", "1.00 cores", "50.00 mJ an inference", "2.50 million instructions")
    for words in (*figures, "p99", "jitter"):
        assert words in result.stderr
    for words in ("paced ", "soak ", "kept "):
        assert words not in result.stderr


def test_bench_tells_of_its_mode(files: dict[str, str]) -> None:
    paced = RUNNER.invoke(app, ["bench", files["old"], "--mode", "paced", "--period-ms", "5", "--processes", "2"])
    assert "12 of 12 inferences took longer than the 5 ms to the next" in paced.stderr
    assert "inferences/s" not in paced.stderr
    soak = RUNNER.invoke(app, ["bench", files["old"], "--mode", "soak", "--seconds", "2"])
    assert "last tenth over first tenth -; memory grew by 4.1 kB" in soak.stderr
    assert "instructions" not in soak.stderr


def test_bench_says_what_could_not_be_measured(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeft.runtime.bench.instructions", lambda _: None)
    plain = partial(bench_module.measure, run=lambda _: Timing(1.0, 1.0, [1.0] * 5, 90, 30, loop_s=1.0))
    monkeypatch.setattr(bench_module, "measure", plain)
    result = RUNNER.invoke(app, ["bench", files["old"]])
    assert "energy   not measured" in result.stderr
    assert "code     not measured" in result.stderr


def test_a_baseline_is_kept_and_compared_with(files: dict[str, str], machine: Machine) -> None:
    kept = RUNNER.invoke(app, ["bench", files["old"], "--eval", files["data"], "--save-baseline", files["kept"]])
    assert (kept.exit_code, kept.stdout) == (0, f"{files['kept']}\n"), kept.stderr
    judged = ["--eval", files["data"], "--max-drop-pp", "5"]
    assert RUNNER.invoke(app, ["compare", files["kept"], files["new"], *judged]).exit_code == 0
    assert RUNNER.invoke(app, ["compare", files["kept"], files["worse"], *judged]).exit_code == 5
    machine.levels["new.onnx"] = 13.0
    assert RUNNER.invoke(app, ["compare", files["kept"], files["new"], *judged]).exit_code == 6


def test_an_edited_baseline_ends_with_8(files: dict[str, str]) -> None:
    RUNNER.invoke(app, ["bench", files["old"], "--save-baseline", files["kept"]])
    kept = Path(files["kept"])
    values = json.loads(kept.read_text())
    kept.write_text(json.dumps({**values, "round_logs": [*values["round_logs"][:-1], 9.0]}))
    result = RUNNER.invoke(app, ["compare", files["kept"], files["new"], "--json"])
    assert result.exit_code == 8
    assert "edited" in json.loads(result.stdout)["message"]


def test_a_missing_baseline_names_the_command_that_makes_it(files: dict[str, str]) -> None:
    result = RUNNER.invoke(app, ["compare", files["kept"], files["new"]])
    assert result.exit_code == 4
    assert f"hint: edgeft bench BUNDLE --save-baseline {files['kept']}" in result.stderr


def test_compare_prints_one_object_under_json(files: dict[str, str]) -> None:
    result = RUNNER.invoke(app, ["compare", files["old"], files["new"], "--rounds", "3", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["kind"], answer["status"], answer["gates"][0]["verdict"]) == ("compare", "passed", "PASS")
    assert "accuracy was not compared" in result.stderr


def test_compare_prints_its_status(files: dict[str, str]) -> None:
    result = RUNNER.invoke(app, ["compare", files["old"], files["new"], "--rounds", "3"])
    assert result.stdout == "passed\n"


@pytest.mark.parametrize(
    ("new", "level", "extra", "code"),
    [
        ("new", 10.0, ["--max-drop-pp", "5"], 0),
        ("worse", 10.0, [], 5),
        ("new", 13.0, ["--max-drop-pp", "5"], 6),
        ("worse", 13.0, [], 5),
        ("new", 13.0, ["--max-drop-pp", "5", "--max-slowdown", "50%"], 0),
        ("new", 13.0, ["--max-drop-pp", "5", "--max-slowdown", "0.5"], 0),
        ("new", 13.0, ["--max-drop-pp", "5", "--no-latency"], 0),
        ("new", 10.0, [], 0),
        ("new", 10.0, ["--strict"], 7),
        ("new", 13.0, ["--strict"], 6),
    ],
)
def test_the_exit_code_is_the_gates(
    files: dict[str, str], machine: Machine, new: str, level: float, extra: list[str], code: int
) -> None:
    machine.levels[f"{new}.onnx"] = level
    result = RUNNER.invoke(app, ["compare", files["old"], files[new], "--eval", files["data"], *extra, "--json"])
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (code, code)


def test_a_ci_server_is_told(files: dict[str, str], machine: Machine, tmp_path: Path) -> None:
    machine.levels["new.onnx"] = 13.0
    junit, job = tmp_path / "gates.xml", tmp_path / "job.md"
    options = ["--eval", files["data"], "--junit", str(junit), "--summary", str(tmp_path / "gates.md"), "--github"]
    result = RUNNER.invoke(
        app, ["compare", files["old"], files["new"], *options, "--json"], env={"GITHUB_STEP_SUMMARY": str(job)}
    )
    assert result.exit_code == 6
    suite = ET.parse(junit).getroot()  # noqa: S314 - our own document
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["2", "1", "1"]
    assert job.read_text() == (tmp_path / "gates.md").read_text()
    marks = [line.partition(" title=")[0] for line in result.stderr.splitlines() if line.startswith("::")]
    assert marks == ["::warning", "::error"]
    assert json.loads(result.stdout)["exit_code"] == 6  # annotations leave stdout to the answer


@pytest.mark.parametrize("dies_at", [1, 17])
def test_a_process_that_dies_leaves_no_file_and_tells_no_verdict(
    files: dict[str, str], machine: Machine, tmp_path: Path, dies_at: int
) -> None:
    before = sorted(tmp_path.rglob("*"))
    machine.dies_at = dies_at
    options = ["--junit", str(tmp_path / "gates.xml"), "--summary", str(tmp_path / "gates.md"), "--github"]
    result = RUNNER.invoke(
        app,
        ["compare", files["old"], files["new"], *options, "--json"],
        env={"GITHUB_STEP_SUMMARY": str(tmp_path / "job.md")},
    )
    assert result.exit_code == 4
    assert "ended with -9" in json.loads(result.stdout)["message"]
    assert "::" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bench", "OLD", "--device", "pi@board"], 2, "--device pi@board"),
        (["bench", "OLD", "--mode", "paced"], 2, "--period-ms 33"),
        (["bench", "OLD", "--period-ms", "33"], 2, "--period-ms 33 is for --mode paced, not single"),
        (["bench", "OLD", "--processes", "0"], 2, "--processes"),
        (["bench", "OLD", "--samples", "4"], 2, "--samples"),
        (["bench", "OLD", "--mode", "fast"], 2, "soak"),
        (["bench", "OLD", "--eval", "DATA"], 2, "--save-baseline"),
        (["bench", "OLD", "--save-baseline", "kept.txt"], 2, ".json"),
        (["bench", "OLD", "--input", "golden"], 2, "no golden images"),
        (["bench", "gone.onnx"], 4, "gone.onnx"),
        (["compare", "OLD", "NEW", "--device", "pi@board"], 2, "--device pi@board"),
        (["compare", "OLD", "NEW", "--max-slowdown", "5"], 2, "--max-slowdown 5%"),
        (["compare", "OLD", "NEW", "--max-drop-pp", "0"], 2, "--max-drop-pp"),
        (["compare", "OLD", "NEW", "--rounds", "9,2.5"], 2, "--rounds"),
        (["compare", "OLD", "NEW", "--rounds", "2"], 2, "latency rounds [2]"),
        (["compare", "OLD", "NEW", "--metric", "f1"], 2, "macro_f1"),
        (["compare", "OLD", "NEW", "--no-latency"], 2, "give --eval DATA"),
        (["compare", "OLD", "NEW", "--eval", "gone.npz"], 3, "gone.npz"),
        (["compare", "OLD"], 2, "NEW"),
    ],
)
def test_bad_input_is_named_before_anything_is_timed(
    files: dict[str, str], machine: Machine, arguments: list[str], code: int, said: str
) -> None:
    result = RUNNER.invoke(app, [files.get(word.lower(), word) for word in arguments])
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert machine.requests == []


@pytest.mark.parametrize("line", ["bench old.onnx", "compare old.onnx new.onnx"])
def test_ctrl_c_claims_no_resumption(line: str) -> None:
    assert describe(KeyboardInterrupt(), line).hint == f"nothing half-done is left; `edgeft {line}` starts anew"


def test_verbs_give_their_options_on(files: dict[str, str], machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    taken = compare_module.compare

    def spy(base: Path, new: Path, options: compare_module.Options, **rest: Any) -> dict[str, Any]:  # noqa: ANN401 - the callee's
        given.append(options)
        return dict(taken(base, new, options, **rest))

    monkeypatch.setattr(compare_module, "compare", spy)
    options = ["--max-slowdown", "7%", "--max-drop-pp", "1.5", "--metric", "macro_f1", "--threads", "2", "--spinning"]
    options += ["--rounds", "3,5", "--input", "noise", "--strict", "--eval", files["data"]]
    RUNNER.invoke(app, ["compare", files["old"], files["new"], *options])
    expected = {"max_slowdown": 0.07, "max_drop_pp": 1.5, "metric": "macro_f1", "threads": 2, "spinning": True}
    expected |= {"rounds": (3, 5), "inputs": "noise", "strict": True, "evaluation": Path(files["data"])}
    assert given == [compare_module.Options(**expected)]  # type: ignore[arg-type]  # by name
    assert {(request.threads, request.spinning) for request in machine.requests} == {(2, True)}
