"""The latency gate on this machine, for real: how often it fails an unchanged bundle, and finds a slower one.

    python benchmarks/gate/false_alarms.py BUNDLE OUT [--count 200] [--slower 0] [--noisy] [--rounds 9]
    python benchmarks/gate/false_alarms.py BUNDLE OUT --slower 10 --count 10 --rounds 9 15 25 40

Each comparison is `edgeft compare BUNDLE BUNDLE` with --max-slowdown 5%: ABBA rounds of fresh processes, a FAIL
measured twice. --slower P makes the second model wait busily after each inference, until it took P percent longer: a
calibrated slowdown inside of the timed process. --noisy keeps one core busy in bursts of 0.1 to 1 s beside it. Results
are appended to OUT and counted there: stop and start it at will. Ends with a table of everything in OUT.
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeft.core import machine
from edgeft.core.record import Verdict
from edgeft.pipeline.subject import open_subject, requests
from edgeft.runtime.abba import compare_requests
from edgeft.runtime.worker import Request, Timing

SLOW_WORKER = """
import sys, time
from edgeft.runtime import session, worker
plain, share = session.AnyModel.run, float(sys.argv[2])
def run(self, feeds):
    began = time.perf_counter_ns()
    found = plain(self, feeds)
    until = began + (time.perf_counter_ns() - began) * (1 + share)
    while time.perf_counter_ns() < until:
        pass
    return found
session.AnyModel.run = run
raise SystemExit(worker.main(sys.argv[1:2]))
"""


def launch(request: Request, share: float) -> Timing:
    """Run `request` in a fresh process whose model takes 1 + `share` times as long."""
    command = [sys.executable, "-c", SLOW_WORKER, json.dumps(asdict(request)), str(share)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Timing(**json.loads(done.stdout.strip().splitlines()[-1]))


def neighbour(stop: Any) -> None:  # noqa: ANN401 - a multiprocessing event
    rng = random.Random(0)  # noqa: S311 - a load, not a secret
    while not stop.is_set():
        until = time.monotonic() + rng.uniform(0.1, 1.0)
        while time.monotonic() < until:
            pass
        time.sleep(rng.uniform(0.1, 1.0))


def one(bundle: Path, slower: float, rounds: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """Return one comparison of `bundle` with itself, slowed down by `slower` percent."""
    subject = open_subject(bundle)
    base, _ = requests(subject, None, folder, threads=1, spinning=False, samples=30, seconds=3.0)
    calls = collections.Counter[str]()

    def run(request: Request) -> Timing:
        arm = "ABBA"[calls["runs"] % 4]
        calls["runs"] += 1
        return launch(request, slower / 100 if arm == "B" else 0.0)

    began = time.monotonic()
    found = compare_requests(base, base, max_ratio=1.05, rounds=rounds, run=run)
    return {
        "verdict": found.verdict.value,
        "ratio": found.ratio,
        "interval": list(found.interval),
        "rounds": found.rounds,
        "noise_floor": found.noise_floor,
        "confirmed": found.confirmed,
        "seconds": time.monotonic() - began,
        "load": os.getloadavg()[0],
    }


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| slower by | neighbour | looks | comparisons | PASS | FAIL | INCONCLUSIVE | rounds | noise floor | s |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = collections.defaultdict(list)
    for row in found:
        groups[row["slower"], row["noisy"], tuple(row["looks"])].append(row)
    for (slower, noisy, looks), rows in sorted(groups.items()):
        counted = collections.Counter(row["verdict"] for row in rows)
        middle = {name: statistics.median(row[name] for row in rows) for name in ("rounds", "noise_floor", "seconds")}
        lines.append(
            f"| {slower:g} % | {'yes' if noisy else 'no'} | {', '.join(map(str, looks))} | {len(rows)} | "
            f"{counted[Verdict.PASS]} | {counted[Verdict.FAIL]} | {counted[Verdict.INCONCLUSIVE]} | "
            f"{middle['rounds']:g} | {middle['noise_floor']:.1%} | {middle['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--slower", type=float, default=0.0)
    parser.add_argument("--noisy", action="store_true")
    parser.add_argument("--rounds", type=int, nargs="+", default=[9])
    args = parser.parse_args()
    print(json.dumps({"machine": machine.facts()}))
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    kind = {"slower": args.slower, "noisy": args.noisy, "looks": args.rounds}
    done = sum(all(row[name] == value for name, value in kind.items()) for row in known)
    stop = multiprocessing.Event()
    beside = multiprocessing.Process(target=neighbour, args=(stop,), daemon=True) if args.noisy else None
    if beside is not None:
        beside.start()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(done, args.count):
            row = kind | one(args.bundle, args.slower, tuple(args.rounds), Path(folder))
            known.append(row)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number + 1}/{args.count} {row['verdict']} {row['ratio']:.3f}", file=sys.stderr, flush=True)
    stop.set()
    print(table(known))


if __name__ == "__main__":
    main()
