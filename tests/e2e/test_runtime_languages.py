"""A bundle runs in other languages as it does in Python, and on the oldest onnxruntime: C++, node, a browser.

Every program classifies the rows of the golden vectors. Labels and reviews must be those of `edgeft.runtime`, scores
within the bundle's own tolerance. The image bundle is int8 and decides by thresholds; the text bundle takes tokens.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edgeft.bundle.golden import from_bytes
from edgeft.runtime import load
from edgeft.runtime.encode import one_row
from edgeft.runtime.predictor import Prediction

SAMPLES = Path(__file__).parents[2] / "samples"
INCLUDES = (Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime"))
SIDE, CLASSES, OK, ROWS = 8, ["dent", "ok", "scratch"], 1, 16
TOLERANCE = {"parts": 0.02, "words": 1e-4}
"""What the two bundles grant their golden vectors, int8 and fp32."""

Classify = Callable[[Path, list[Path]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """A bundle, the files that programs classify, and what `edgeft.runtime` decides."""

    bundle: Path
    files: list[Path]
    expected: list[Prediction]

    def check(self, found: list[dict[str, Any]]) -> None:
        classes = json.loads((self.bundle / "manifest.json").read_bytes())["classes"]
        atol = TOLERANCE[self.bundle.name]
        assert len(found) == len(self.expected) == len(self.files)
        for one, expected in zip(found, self.expected, strict=True):
            decided = (expected.label, classes.index(expected.label), expected.review)
            assert (one["label"], one["index"], one["review"]) == decided
            assert set(one) == {"label", "index", "score", "review", "scores"}
            assert set(one["scores"]) == set(classes)
            scores = [one["scores"][name] for name in classes]
            np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=atol)
            assert one["score"] == scores[one["index"]]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """An int8 bundle of images with thresholds, which all three outcomes meet."""
    from edgeft.bundle.licenses import license_of
    from edgeft.bundle.pack import Parts, pack

    data, pixels = _write_data(tmp_path)
    (tmp_path / "model.onnx").write_bytes(_int8(pixels))
    stop_at, sure_at = _thresholds(tmp_path / "model.onnx", pixels)
    made = Parts(
        name="parts",
        target="onnx",
        precision="int8",
        model=tmp_path / "model.onnx",
        more=(),
        data=data,
        images=tmp_path / "images",
        decision={"method": "threshold", "ok": CLASSES[OK], "stop_at": stop_at, "sure_at": sure_at},
        gates=(),
        measurements={"share": 1e-05, "whole": 1.0, "ä": None},
        licenses=(license_of("data", "./images"),),
        report_html="<html></html>",
        report_json={"schema": 1, "status": "passed"},
        model_card="# parts\n",
        run={"started": "2024-01-01T00:00:00Z", "seconds": 1.5, "versions": {}},
    )
    pack(tmp_path / "dist" / "parts", made)
    return tmp_path / "dist" / "parts"


def _write_data(root: Path) -> tuple[Path, np.ndarray]:
    """Images of one colour each under noise, and a data stage's folder of them: all validation rows."""
    rng = np.random.default_rng(4)
    pixels = np.clip(rng.uniform(0, 255, (ROWS, 1, 1, 3)) + rng.normal(0, 20, (ROWS, SIDE, SIDE, 3)), 0, 255)
    pixels = pixels.astype(np.uint8)
    (root / "images").mkdir()
    (root / "data").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(root / "images" / f"{index}.png")
    rows = [{"index": i, "path": f"{i}.png", "split": "val"} for i in range(ROWS)]
    (root / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(root / "data" / "pixels.npy", pixels)
    contract = {"height": SIDE, "width": SIDE, "resize": "squash", "resize_to": None, "filter": "bilinear"}
    contract |= {"mean": [127.0] * 3, "std": [128.0] * 3}
    dataset = {"task": "image_classification", "classes": CLASSES, "ok_class": CLASSES[OK], "input": contract}
    (root / "data" / "dataset.json").write_text(json.dumps(dataset))
    return root / "data", pixels


def _decisive(pixels: np.ndarray) -> Any:  # noqa: ANN401 - an onnx proto
    """Return a small classifier whose scores tell `pixels` apart: a low temperature, logits with a mean of zero."""
    from onnx import numpy_helper

    from edgeft.testing.exporter_cases import classifier

    model, temperature = classifier(), np.float32(0.2)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    kept["temperature"].CopyFrom(numpy_helper.from_array(temperature, "temperature"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = np.log(session.run(None, {"pixels": pixels})[0]) * temperature
    bias = numpy_helper.to_array(kept["head.bias"]) - (logits - logits.mean(axis=1, keepdims=True)).mean(axis=0)
    kept["head.bias"].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), "head.bias"))
    return model


def _int8(pixels: np.ndarray) -> bytes:
    from edgeft.quantize.static import quantize_static, static_method
    from edgeft_exporters.onnx.placement import PLACEMENT

    quantized = quantize_static(_decisive(pixels), PLACEMENT, pixels, static_method("auto", ROWS)).model
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in quantized.graph.node}
    return bytes(quantized.SerializeToString())


def _thresholds(model: Path, pixels: np.ndarray) -> tuple[float, float]:
    """Return the middles of the two widest gaps in badness, so that no rounding moves a row across."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    badness = np.sort(1 - np.concatenate([session.run(None, {"pixels": row[None]})[0] for row in pixels])[:, OK])
    widest = np.sort(np.argsort(np.diff(badness))[-2:])
    assert np.diff(badness)[widest].min() > 3 * TOLERANCE["parts"]
    return tuple(float((badness[index] + badness[index + 1]) / 2) for index in widest)


def _asked(bundle: Path, folder: Path) -> Asked:
    """Write the golden rows as the programs read them: PPM files, or token ids."""
    golden = from_bytes((bundle / "golden.npz").read_bytes(), "golden")
    assert golden.atol == TOLERANCE[bundle.name]
    files = []
    for index in range(len(golden.scores)):
        row = one_row(golden.inputs, index)
        if "pixels" in row:
            data = b"P6\n%d %d\n255\n" % (SIDE, SIDE) + row["pixels"].tobytes()
        else:
            data = " ".join(map(str, row["input_ids"][0])).encode()
        files.append(folder / f"{index}.in")
        files[-1].write_bytes(data)
    return Asked(bundle, files, load(bundle).decide(golden.inputs))


@pytest.fixture(params=["parts", "text_bundle"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Asked:
    return _asked(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def of_parts(parts: Path, tmp_path: Path) -> Asked:
    return _asked(parts, tmp_path)


def test_the_image_bundle_meets_every_outcome(of_parts: Asked) -> None:
    outcomes = {(one.label == CLASSES[OK], one.review) for one in of_parts.expected}
    assert outcomes == {(True, False), (False, True), (False, False)}
    assert {one.label for one in of_parts.expected} == set(CLASSES)


def _needed(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH: .ci/run installs it")


def _lines(*command: str | Path, env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ sample, built against the library in onnxruntime's own wheel: the one that Python runs."""
    _needed("g++")
    include = next((path for path in INCLUDES if (path / "onnxruntime_cxx_api.h").is_file()), None)
    headers = (Path("/usr/include/nlohmann/json.hpp"), Path("/usr/include/openssl/sha.h"))
    if include is None or not all(path.is_file() for path in headers):
        pytest.skip("the headers of onnxruntime, nlohmann-json3-dev or libssl-dev are missing: .ci/run installs them")
    library = next(Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} came without libonnxruntime.so")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", include, f"-L{folder}", f"-Wl,-rpath,{folder}"]
    source = SAMPLES / "runtime_cpp" / "classify.cpp"
    command = ["g++", source, *flags, "-lonnxruntime", "-lcrypto", "-o", folder / "classify"]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stderr
    return folder / "classify"


@pytest.fixture(scope="module")
def js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript sample with its packages."""
    _needed("node", "npm")
    folder = tmp_path_factory.mktemp("js") / "runtime_js"
    shutil.copytree(SAMPLES / "runtime_js", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    if done.returncode and re.search(r"E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|NOTCACHED)", done.stderr):
        pytest.skip(f"npm cannot fetch onnxruntime-web: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder


def test_cpp(asked: Asked, cpp: Path) -> None:
    asked.check(_lines(cpp, asked.bundle, *asked.files))


def test_node(asked: Asked, js: Path) -> None:
    asked.check(_lines("node", js / "classify.mjs", asked.bundle, *asked.files))


DECIDE = """
import json, sys
from pathlib import Path
from edgeft.bundle.golden import from_bytes
from edgeft.runtime import load
bundle = Path(sys.argv[1])
golden = from_bytes((bundle / "golden.npz").read_bytes(), "golden")
predictor = load(bundle)
for one in predictor.decide(golden.inputs):
    scores = dict(zip(predictor.classes, one.scores, strict=True))
    score = one.scores[one.index]
    answer = {"label": one.label, "index": one.index, "score": score, "review": one.review, "scores": scores}
    print(json.dumps(answer))
"""


def test_the_oldest_promised_onnxruntime(asked: Asked, oldest: Path) -> None:
    paths = [str(oldest), str(SAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    asked.check(_lines(sys.executable, "-c", DECIDE, asked.bundle, env=env))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: pytest shows what a test prints."""


@pytest.fixture
def served(js: Path, tmp_path: Path) -> Iterator[str]:
    """The address, on the loopback, of a folder that holds the sample and what a test wrote."""
    (tmp_path / "runtime_js").symlink_to(js)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _page_text(url: str, home: Path) -> str:
    """Open `url` in headless Chromium, let its virtual clock run until the page is idle, and return its text."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-dev-shm-usage", "--no-first-run", "--virtual-time-budget=120000", "--dump-dom"]
    command = ["chromium", *flags, f"--user-data-dir={home}", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    found = re.search(r'<title>(.*?)</title>.*<pre id="lines">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert found[1] == "done", found[2]
    return found[2]


def test_browser(asked: Asked, served: str, tmp_path: Path) -> None:
    _needed("chromium")
    query = [("bundle", f"/{asked.bundle.relative_to(tmp_path)}")]
    query += [("file", f"/{file.relative_to(tmp_path)}") for file in asked.files]
    text = _page_text(f"{served}/runtime_js/index.html?{urlencode(query)}", tmp_path / "chromium")
    asked.check([json.loads(line) for line in text.splitlines()])


def _programs(request: pytest.FixtureRequest, language: str) -> list[str | Path]:
    program = request.getfixturevalue(language)
    return [program] if language == "cpp" else ["node", program / "classify.mjs"]


@pytest.mark.parametrize("language", ["cpp", "js"])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz", "LICENSES.md", "MODEL_CARD.md"])
def test_one_changed_byte_is_refused(request: pytest.FixtureRequest, language: str, name: str, of_parts: Asked) -> None:
    path = of_parts.bundle / name
    data = path.read_bytes()
    old, new = (b'"parts"', b'"pants"') if name == "manifest.json" else (data[-1:], bytes([data[-1] ^ 1]))
    assert old in data
    path.write_bytes(new.join(data.rsplit(old, 1)))
    command = [*_programs(request, language), of_parts.bundle, of_parts.files[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert f"{name} is damaged" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("language", ["cpp", "js"])
def test_a_file_that_is_not_listed_is_refused(request: pytest.FixtureRequest, language: str, of_parts: Asked) -> None:
    command = [*_programs(request, language), of_parts.bundle, of_parts.files[0]]
    (of_parts.bundle / "model.sig").write_text("{}")  # a signature is no stranger
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    (of_parts.bundle / "custom_op.so").write_bytes(b"")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "custom_op.so" in done.stderr
    assert "not listed in manifest.json" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("language", ["cpp", "js"])
def test_pixels_of_another_size_are_refused(request: pytest.FixtureRequest, language: str, of_parts: Asked) -> None:
    of_parts.files[0].write_bytes(b"P6\n7 8\n255\n" + bytes(7 * 8 * 3))
    command = [*_programs(request, language), of_parts.bundle, of_parts.files[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert done.stdout == ""
