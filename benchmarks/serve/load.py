"""`edgeft serve` under load on loopback: requests a second, p50 and p99, every status, and memory over time.

    python benchmarks/serve/load.py BUNDLE [--minutes 10] [--connections 32] [-- OPTIONS OF edgeft serve]

The load is wrk's (Debian's package wrk): each connection sends the bundle's raw golden inputs in turn, and the next one
as soon as it has its answer, so the server is saturated throughout. Server and load share the machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeft.bundle.golden import from_bytes
from edgeft.core import machine
from edgeft.runtime.manifest import GOLDEN, read_files
from edgeft.runtime.preprocess import INPUT

SCRIPT = """
local bodies, turn, headers = {}, 0, {}
function init(args)
  headers["Content-Type"] = args[1]
  for i = 2, #args do
    local file = assert(io.open(args[i], "rb"))
    bodies[#bodies + 1] = file:read("*a")
    file:close()
  end
end
function request()
  turn = turn % #bodies + 1
  return wrk.format("POST", "/predict", headers, bodies[turn])
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "s": %.1f, "p50_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f, ' ..
    '"socket_errors": %d, "timeouts": %d, "not_2xx": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, e.connect + e.read + e.write, e.timeout, e.status))
end
"""


@contextmanager
def served(bundle: Path, options: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the server's process id and address, and stop it."""
    command = [sys.executable, "-m", "edgeft", "serve", str(bundle), "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline() if process.stdout else ""
            yield process.pid, json.loads(ready)["url"]
        finally:
            process.terminate()
            print(f"stopped, exit code {process.wait(60)}")


def inputs(bundle: Path, folder: Path) -> list[str]:
    """Write the raw golden inputs to files; return their content type and paths."""
    golden = from_bytes(read_files(bundle)[1][GOLDEN], "golden")
    images = INPUT in golden.inputs
    listed = ["application/octet-stream" if images else "text/plain"]
    for index, source in enumerate(golden.sources()):
        path = folder / str(index)
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            path.write_text(source if isinstance(source, str) else "\t".join(map(str, source)))
        listed.append(str(path))
    return listed


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def watch(pid: int, stop: threading.Event, seen: list[tuple[float, float]]) -> None:
    """Note the server's resident memory every ten seconds."""
    began = time.monotonic()
    while not stop.wait(10):
        seen.append((time.monotonic() - began, rss_mib(pid)))
        print(f"{seen[-1][0]:6.0f} s  {seen[-1][1]:7.1f} MiB", flush=True)


def drive(url: str, seconds: int, connections: int, bodies: list[str], folder: Path) -> dict[str, Any]:
    """Run wrk; return what it counted."""
    script = folder / "post.lua"
    script.write_text(SCRIPT)
    wrk = shutil.which("wrk") or sys.exit("wrk is missing: apt-get install wrk")
    sizes = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "30s"]
    command = [wrk, *sizes, "--script", str(script), url, "--", *bodies]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=32)
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, options = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    facts = machine.facts()
    print(f"{facts['cpu']}, {facts['cores']} cores, load {os.getloadavg()[0]:.1f} before; {' '.join(options)}")
    with tempfile.TemporaryDirectory() as name, served(given.bundle, options) as (pid, url):
        folder, stop, seen = Path(name), threading.Event(), list[tuple[float, float]]()
        print(f"     0 s  {rss_mib(pid):7.1f} MiB")
        watcher = threading.Thread(target=watch, args=(pid, stop, seen))
        watcher.start()
        try:
            found = drive(url, round(60 * given.minutes), given.connections, inputs(given.bundle, folder), folder)
        finally:
            stop.set()
            watcher.join()
        with urllib.request.urlopen(f"{url}/metrics") as page:  # noqa: S310 - this machine's own server
            counted = [line for line in page.read().decode().splitlines() if line.startswith("edgeft_requests_total")]
    print(f"{given.connections} connections: {found['requests'] / found['s']:.1f} requests/s, {json.dumps(found)}")
    print("\n".join(line for line in counted if not line.endswith(" 0.0")))
    after = [mib for s, mib in seen if s >= 60]
    if after:
        print(f"resident after the first minute: {min(after):.1f} to {max(after):.1f} MiB, at the end {after[-1]:.1f}")


if __name__ == "__main__":
    main()
