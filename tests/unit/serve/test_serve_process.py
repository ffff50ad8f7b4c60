"""`edgeft serve` as a process: ready, saturated, stopped; and how it fails to start."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.serve.server import _bound

RUNNER = CliRunner()
PATCHED = """
import pathlib, sys, time
from edgeft.runtime.encode import ImageEncoder
from edgeft.serve import server

go, sys.argv = pathlib.Path(sys.argv[1]), ["edgeft", *sys.argv[2:]]
whole, load = ImageEncoder.__call__, server.load

def held(self, source, name):
    while not go.exists():
        time.sleep(0.005)
    return whole(self, source, name)

def load_and_hold(*given, **named):
    found = load(*given, **named)
    ImageEncoder.__call__ = held
    return found

server.load = load_and_hold
from edgeft.cli.main import main
main()
"""


@contextmanager
def started(bundle: Path, *options: str, go: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a server and its host:port; with `go` it decides nothing until that file is there."""
    arguments = ["serve", str(bundle), "--port", "0", "--json", *options]
    code = ["-m", "edgeft"] if go is None else ["-c", PATCHED, str(go)]
    process = subprocess.Popen(
        [sys.executable, *code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, urllib.parse.urlsplit(json.loads(line)["url"]).netloc
    finally:
        process.kill()
        process.communicate()


def ask(address: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, str | None]:
    line = http.client.HTTPConnection(address, timeout=60)
    try:
        line.request(method, path, body, {"Content-Type": "image/png"} if body else {})
        answer = line.getresponse()
        return answer.status, answer.read(), answer.headers["Retry-After"]
    finally:
        line.close()


def wait_for(address: str, line: str) -> None:
    for _ in range(6000):
        if line in ask(address, "GET", "/metrics")[1].decode().splitlines():
            return
        time.sleep(0.01)
    raise AssertionError(line)


def test_it_is_ready_in_one_line_and_answers_every_request_at_saturation(tiny_bundle: Path, image: bytes) -> None:
    callers, each = 16, 25
    with started(tiny_bundle, "--queue", str(callers)) as (process, address):

        def keep_asking(_: int) -> list[int]:
            line = http.client.HTTPConnection(address, timeout=60)
            statuses = []
            for _ in range(each):
                line.request("POST", "/predict", image, {"Content-Type": "image/png"})
                answer = line.getresponse()
                answer.read()
                statuses.append(answer.status)
            line.close()
            return statuses

        with ThreadPoolExecutor(callers) as pool:
            found = [status for statuses in pool.map(keep_asking, range(callers)) for status in statuses]
        assert found == [200] * callers * each
        page = ask(address, "GET", "/metrics")[1].decode()
        assert f'edgeft_requests_total{{status="200"}} {callers * each:.1f}' in page
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_beyond_the_queue_it_is_503_and_the_rest_is_answered(tiny_bundle: Path, image: bytes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with started(tiny_bundle, "--workers", "1", "--queue", "1", go=go) as (_, address), ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(ask, address, "POST", "/predict", image) for _ in range(2)]
        wait_for(address, "edgeft_in_flight 2.0")
        status, body, again = ask(address, "POST", "/predict", image)
        assert (status, again) == (503, "1")
        assert set(json.loads(body)) == {"error", "hint"}
        go.touch()
        assert [one.result()[0] for one in taken] == [200, 200]


@pytest.mark.parametrize("grace", ["60", "0"])
def test_a_stop_answers_what_was_taken_in_within_its_grace(
    tiny_bundle: Path, image: bytes, tmp_path: Path, grace: str
) -> None:
    go = tmp_path / "go"
    options = ("--workers", "1", "--grace-s", grace)
    with started(tiny_bundle, *options, go=go) as (process, address), ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(ask, address, "POST", "/predict", image) for _ in range(2)]
        wait_for(address, "edgeft_in_flight 2.0")
        process.send_signal(signal.SIGTERM)
        host, _, port = address.rpartition(":")
        for _ in range(6000):  # until nothing is accepted any more
            try:
                socket.create_connection((host, int(port)), 60).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.01)
        else:
            raise AssertionError("it goes on accepting")
        if grace != "0":
            go.touch()
        assert [one.result()[0] for one in taken] == ([503, 503] if grace == "0" else [200, 200])
        go.touch()  # a worker ends its last image before the process ends
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_second_signal_does_not_wait(tiny_bundle: Path, image: bytes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with started(tiny_bundle, "--workers", "1", go=go) as (process, address), ThreadPoolExecutor(1) as pool:
        pool.submit(ask, address, "POST", "/predict", image)
        wait_for(address, "edgeft_in_flight 1.0")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        go.touch()
        assert process.wait(60) == 0


def test_people_read_its_address_on_stderr(tiny_bundle: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "edgeft", "serve", str(tiny_bundle), "--port", "0", "--host", "127.0.0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr
        line = process.stderr.readline()
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert line.startswith("tiny (content ")
    assert ") answers on http://127.0.0.1:" in line
    assert (process.returncode, out) == (0, "")


def test_an_address_in_use_is_named(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = RUNNER.invoke(app, ["serve", str(tiny_bundle), "--port", port])
    assert found.exit_code == 4
    assert f"127.0.0.1:{port} cannot be bound" in found.stderr
    assert "--port 0" in found.stderr


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """Asyncio sets TCP_NODELAY on accepted sockets only where their listener names its protocol."""
    with _bound("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("module", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_extra_names_its_command(tiny_bundle: Path, module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\nfrom edgeft.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(tiny_bundle)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 4
    assert f"this needs '{module}" in done.stderr
    assert "pip install 'edgeft[serve]'" in done.stderr


def test_a_damaged_bundle_and_one_without_its_signature_are_not_served(tiny_bundle: Path, tmp_path: Path) -> None:
    (tiny_bundle / "extra").write_text("x")
    assert RUNNER.invoke(app, ["serve", str(tiny_bundle), "--port", "0"]).exit_code == 8
    (tiny_bundle / "extra").unlink()
    key = tmp_path / "no.pub"
    key.write_text("no key")
    found = RUNNER.invoke(app, ["serve", str(tiny_bundle), "--port", "0", "--require-signature", str(key)])
    assert found.exit_code == 8
    assert "not signed, and a signature is required" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workers", "0"), ("--threads", "0"), ("--queue", "-1"), ("--max-bytes", "0"), ("--max-batch", "0"),
        ("--max-wait-ms", "1001"), ("--timeout-ms", "0"), ("--grace-s", "-1"), ("--port", "65536"),
    ],
)  # fmt: skip
def test_limits_out_of_range_are_usage_errors(tiny_bundle: Path, arguments: tuple[str, str]) -> None:
    found = RUNNER.invoke(app, ["serve", str(tiny_bundle), *arguments])
    assert found.exit_code == 2
    assert arguments[0] in found.stderr
