"""`edgeft quantize`: any float ONNX model to its int8, int4 or fp16 candidate, measured, and what should ship.

The gates judge what was asked for; what ships is fp32 wherever that is not proven to be the better choice.
Nothing is cached and nothing is half-written: the folder appears whole when everything has been measured.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft import __version__, catalog
from edgeft.core import machine
from edgeft.core.atomic import write_atomic
from edgeft.core.disk import disk_errors, require_writable
from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, StageFinished, StageStarted, ignore
from edgeft.core.exporter import Exporter
from edgeft.core.keys import versions
from edgeft.core.record import Gate
from edgeft.core.stage import Context, StageResult
from edgeft.pipeline import gates as judged
from edgeft.pipeline.choose import FP32, decide, smallest
from edgeft.pipeline.record import new_run

if TYPE_CHECKING:
    from edgeft.verify.latency import Ratio

SCHEMA = 1
KIND = "quantize"
MODEL, LOWERED = "model.onnx", "lowered"
FILES = frozenset({MODEL, LOWERED, "candidates", "candidates.json", "report.json", "report.html"})
"""Every name that the folder can hold at its top."""
BIAS_IMAGES = 96
_NEEDS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "pillow")
_SEED = 0
_STAGE = "edgeft.quantize.standalone"


@dataclass(frozen=True, slots=True)
class Request:
    """What to quantize, and how.

    Args:
        model: the float .onnx file.
        calibration: .npz, .npy or image folder that sets ranges and rounds weights.
        evaluation: the same that candidates are compared on; None compares them on the calibration data.
        out: the folder to write.
        target: the exporter's name.
        max_drop_pp: how much accuracy it may lose, in percentage points.
        precision: int8, int4 or fp16.
        method: see `CompressConfig.method`.
        threads: CPU threads, of the work and of the timings.
        images: calibration inputs at most.
        mean: of images for a float input, in pixel units; one number or three. None without images.
        std: likewise.
        sizes: of the input after the batch axis, where the model leaves them open.
        latency: whether to time it against fp32.
        search: whether segments that are faster in float stay in float.
        float_share: of the multiplications, around the tensors that suffer most from 8 bits, 0..1; None: the default of
            `CompressConfig`.
        swap_activations: whether HardSwish and SiLU become Relu first, healed by training.
        strict: whether what cannot be decided makes the exit code 7.
    """

    model: Path
    calibration: Path
    evaluation: Path | None
    out: Path
    target: str = "onnx"
    max_drop_pp: float = 1.0
    precision: str = "int8"
    method: str = "auto"
    threads: int = 1
    images: int = 256
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    sizes: tuple[int, ...] | None = None
    latency: bool = True
    search: bool = False
    float_share: float | None = None
    swap_activations: bool = False
    strict: bool = False


def quantize(request: Request, *, emit: EventSink = ignore) -> dict[str, Any]:
    """Quantize, measure, choose, and write `request.out`; return the record that is its report.json.

    Raises:
        EdgeftError: the model or the data cannot be used; its exit code says of what kind. Gates that fail are no
            exception: see the record.
    """
    from edgeft.bundle.swap import new_folder, refuse_strangers
    from edgeft.report.html import render

    began = time.perf_counter()
    run, started = new_run()
    exporter = catalog.exporter(request.target)
    if (require := getattr(exporter, "require", None)) is not None:
        require()
    if not exporter.cross:
        exporter.fingerprint()  # a runtime that is missing is told before the work, not after it
    elif request.search:
        raise UsageError(
            f"--search measures on this device, and {request.target} does not run here", hint="leave out --search"
        )
    out = request.out.absolute()
    refuse_strangers(out, FILES, "what `edgeft quantize` writes")
    require_writable(out.parent, purpose="the output folder", option="--out")
    with disk_errors(out.parent, purpose="the output folder", option="--out"), new_folder(out) as folder:
        workspace = folder / "work"
        workspace.mkdir()
        made = _make(request, Context(folder, workspace, _SEED, request.threads, emit))
        found = _measure(request, made, workspace, exporter, emit)
        by_name = {item["name"]: item for item in found["candidates"]["candidates"]}
        shipped = _ship(folder / by_name[found["choice"]["chosen"]]["file"], folder, exporter)
        record = {
            "schema": SCHEMA,
            "kind": KIND,
            "name": request.model.stem,
            "run": run,
            "out": str(out),
            "model": str(out / shipped[0]),
            "files": shipped,
            "report": str(out / "report.html"),
            **found,
            **made.measurements,
            "notes": list(made.notes),
            "timings": dict(made.timings),
            "settings": _settings(request),
            "machine": machine.facts(),
            "versions": {"edgeft": __version__, **versions(_NEEDS)},
            "started": started,
            "seconds": time.perf_counter() - began,
            "seed": _SEED,
        }
        shutil.rmtree(workspace)
        plain: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
        write_atomic(folder / "report.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
        write_atomic(folder / "report.html", render(plain, folder))
    return plain


def _make(request: Request, ctx: Context) -> StageResult:
    """Write the candidates to `ctx.folder`."""
    ctx.emit(StageStarted("compress", f"{request.precision}, {request.method}"))
    began = time.perf_counter()
    config = catalog.resolve(f"{_STAGE}:StandaloneConfig")(
        target=request.target,
        precision=request.precision,
        method=request.method,
        max_drop_pp=request.max_drop_pp,
        images=request.images,
        bias_images=BIAS_IMAGES,
        mean=request.mean,
        std=request.std,
        sizes=request.sizes,
        search=request.search,
        float_share=request.float_share,
        swap_activations=request.swap_activations,
        threads=request.threads,
    )
    inputs = {"model": request.model, "calibration": request.calibration}
    if request.evaluation is not None:
        inputs["evaluation"] = request.evaluation
    made: StageResult = catalog.resolve(f"{_STAGE}:run")(ctx, inputs, config)
    ctx.emit(StageFinished("compress", reused=False, seconds=time.perf_counter() - began))
    return made


def _measure(
    request: Request, made: StageResult, workspace: Path, exporter: Exporter, emit: EventSink
) -> dict[str, Any]:
    """Judge and time the candidates, and choose; return these parts of the record."""
    folder = made.folder
    candidates = json.loads((folder / "candidates.json").read_bytes())
    by_name = {item["name"]: item for item in candidates["candidates"]}
    files = {name: folder / item["file"] for name, item in by_name.items()}
    asked = request.precision
    block = by_name[asked]["validation"]
    measured = "drop_pp" in block
    gates = [_accuracy_gate(by_name[asked], request.max_drop_pp)] if measured else []
    holding = [FP32, asked] if block.get("holds_margin", True) else [FP32]
    margin = f"the margin of {request.max_drop_pp:g} pp accuracy" if measured else ""
    compared: dict[str, Any] = {}
    if exporter.cross:
        chosen, reason = decide({}, margin, alone=False)
        if asked in holding:
            chosen, reason = (
                asked,
                f"{asked} ships because it was asked for" + (f" and holds {margin}" if margin else ""),
            )
    elif request.latency:
        lowered = {name: exporter.lower(files[name], _new(workspace / LOWERED / name))[0] for name in (FP32, asked)}
        compared, gate = _time(request, lowered, workspace / catalog.resolve(f"{_STAGE}:TIMED"), emit)
        gates.append(gate)
        chosen, reason = decide({asked: _ratio(compared)} if asked in holding else {}, margin, alone=False)
    elif asked in holding:
        chosen, reason = smallest({name: by_name[name]["size_bytes"] for name in holding}, "--no-latency")
    else:
        chosen, reason = decide({}, margin, alone=False)
    unmeasured = "; ".join(_unmeasured(request, measured=measured, cross=exporter.cross))
    status, exit_code = judged.status(gates, strict=request.strict)
    if unmeasured and status == "passed":
        status, exit_code = "inconclusive", judged.INCONCLUSIVE_EXIT if request.strict else 0
    return {
        "status": status,
        "exit_code": exit_code,
        "verdict": f"{reason}; {unmeasured}" if unmeasured else reason,
        "gates": [asdict(gate) for gate in gates],
        "candidates": candidates,
        "choice": {"chosen": chosen, "reason": reason, "latency": _medians(asked, compared)},
        "linted": asked,
        "lint": [asdict(finding) for finding in exporter.lint(files[asked])],
        **({"latency": compared} if compared else {}),
    }


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _ship(graph: Path, folder: Path, exporter: Exporter) -> list[str]:
    """Write `graph` to `folder`/model.onnx, and its target's files to lowered/ where there are more than that.

    Returns:
        Their names below `folder`.
    """
    write_atomic(folder / MODEL, graph.read_bytes())
    files = exporter.lower(graph, _new(folder / LOWERED))
    if [file.read_bytes() for file in files] == [(folder / MODEL).read_bytes()]:
        shutil.rmtree(folder / LOWERED)  # onnxruntime's file is the graph itself
        return [MODEL]
    return [MODEL, *(str(file.relative_to(folder)) for file in files)]


def _accuracy_gate(candidate: dict[str, Any], max_drop_pp: float) -> Gate:
    from edgeft.core.record import Verdict
    from edgeft.verify.power import images_needed
    from edgeft.verify.verdicts import at_most

    name, block, rungs = candidate["name"], candidate["validation"], len(candidate["ladder"])
    n, (low, high) = block["n"], block["drop_interval_pp"]
    verdict = at_most(low, high, max_drop_pp)
    changed = round((1 - block["agreement"]) * n)
    detail = f"drop of {block['metric']} from fp32 to {name}; {changed} of {n} decisions changed"
    if verdict is Verdict.INCONCLUSIVE:
        needed = images_needed(max_drop_pp, max(changed, 1) / n)
        detail += f"; {needed} labelled inputs would certify {max_drop_pp:g} pp at this rate"
    if rungs > 1:
        detail += f"; chosen among {rungs} on the same inputs, so the bound is optimistic: measure it on others"
    interval = (low, high)
    return Gate(
        f"accuracy {name}", verdict, block["drop_pp"], interval, max_drop_pp, "pp", n, detail, judged.ACCURACY_EXIT
    )


def _time(request: Request, files: dict[str, Path], inputs: Path, emit: EventSink) -> tuple[dict[str, Any], Gate]:
    """Compare what was asked for with fp32 in ABBA rounds of fresh processes."""
    from edgeft.runtime.abba import compare

    emit(StageStarted("latency", "always measured anew"))
    began = time.perf_counter()
    compared = compare(
        files[FP32],
        files[request.precision],
        threads=request.threads,
        max_ratio=judged.FASTER,
        inputs=inputs,
        exporter=catalog.exporters()[request.target],
        emit=emit,
    )
    emit(StageFinished("latency", reused=False, seconds=time.perf_counter() - began))
    return {**compared.to_json(), "candidate": request.precision}, compared.gate(f"latency {request.precision} vs_fp32")


def _ratio(compared: dict[str, Any]) -> "Ratio":
    from edgeft.verify.latency import Ratio

    low, high = compared["interval"]
    return Ratio(compared["ratio"], low, high, compared["rounds"])


def _medians(name: str, compared: dict[str, Any]) -> dict[str, Any]:
    """Return the median latency of each candidate, as the choose stage records it; empty where nothing was timed."""
    arms = {FP32: compared.get("base"), name: compared.get("new")}
    return {each: {"median_ms": arm["median_ms"], "rounds_ms": arm["rounds_ms"]} for each, arm in arms.items() if arm}


def _unmeasured(request: Request, *, measured: bool, cross: bool) -> list[str]:
    """Return what is not known about the candidate, and why."""
    found = []
    if request.evaluation is None:
        found.append(
            "accuracy was not measured: no --eval data was given, and calibration data proves nothing about it"
        )
    elif not measured:
        found.append(f"accuracy was not measured: {request.evaluation} has no labels")
    if cross:
        found.append(
            f"answers were computed by onnxruntime and speed was not measured: {request.target} does not run here "
            "(unverified on hardware)"
        )
    return found


def _settings(request: Request) -> dict[str, Any]:
    names = (
        "target",
        "precision",
        "method",
        "max_drop_pp",
        "threads",
        "images",
        "mean",
        "std",
        "sizes",
        "search",
        "float_share",
        "swap_activations",
        "strict",
    )
    return {name: getattr(request, name) for name in names}
