"""Times one model in a process of its own: `python -m edgeft.runtime.worker REQUEST` prints one JSON line.

A fresh process per run keeps one run's heap, caches and threads from another's. Batch 1, one image after the other, and
every sample is returned: nothing is clipped. Paced, images come at fixed times whether the model is ready or not, and a
sample counts from when its image came: a late start is part of the latency. Memory is the peak of this program alone:
on Linux VmHWM, because ru_maxrss survives exec and would report the parent's.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft.core.errors import EdgeftError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeft.runtime.session import AnyModel, Model, TensorSpec

_NOISE_IMAGES = 4
_MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What to time.

    Args:
        model: an ONNX model; with `images` a deployment graph.
        threads: intra-op threads.
        spinning: whether idle threads spin.
        samples: timed inferences, cycling through the inputs.
        warmup: untimed inferences after the first.
        max_seconds: after this long no new sample starts, but at least five are taken.
        inputs: .npz with an array [M, ...] named like each of the model's inputs, or .npy with that of its one input;
            None times seeded noise.
        images: raw image files; given, each sample is end to end: read, decode, resize, infer, decide.
        texts: raw texts; given, each sample is end to end: split into tokens, infer, decide.
        contract: the input contract's JSON, needed with `images` and `texts`.
        tokenizer: path of tokenizer.json, needed with `texts`.
        ragged: whether each row of `inputs` is fed without its padding, as a device would.
        exporter: "module:Class" of the exporter whose runtime runs the model, for arrays by name from `inputs`; None
            runs it in onnxruntime.
        period_ms: above 0, an image comes every so many ms; 0 takes the next one when the last is done.
    """

    model: str
    threads: int
    spinning: bool
    samples: int
    warmup: int
    max_seconds: float
    inputs: str | None = None
    images: tuple[str, ...] = ()
    texts: tuple[Any, ...] = ()
    contract: dict[str, Any] | None = None
    tokenizer: str | None = None
    ragged: bool = False
    exporter: str | None = None
    period_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """What one process measured.

    Args:
        load_ms: opening the model.
        first_ms: the first inference.
        samples_ms: in the order they ran.
        peak_rss_bytes: largest resident size.
        base_rss_bytes: largest before the model was loaded: the interpreter, numpy and onnxruntime.
        loop_s: wall time of all samples, and of the waits between them.
        cpu_s: processor time of all threads in that time.
        grown_bytes: what the resident size gained in that time.
        energy_j: what the processor's package took in that time, other programs included; None where it cannot be read.
    """

    load_ms: float
    first_ms: float
    samples_ms: list[float]
    peak_rss_bytes: int
    base_rss_bytes: int
    loop_s: float = 0.0
    cpu_s: float = 0.0
    grown_bytes: int = 0
    energy_j: float | None = None


def measure(request: Request) -> Timing:
    """Load the model and time it.

    Raises:
        UsageError: inputs do not fit the model.
        EdgeftError: the model cannot be loaded.
    """
    from edgeft.runtime.session import AnyModel, Model

    open_session = None if request.exporter is None else _exporter_session(request.exporter)
    base = peak_rss_bytes()
    started = time.perf_counter_ns()
    if open_session is not None:
        run = open_session(Path(request.model), request.threads)
        load_ms = _since(started)
        steps = _rows(run, _read_named(request.inputs), ragged=request.ragged)
    else:
        kind = Model if request.images or request.texts else AnyModel
        model = kind.open(Path(request.model), threads=request.threads, spinning=request.spinning)
        load_ms = _since(started)
        steps = _end_to_end(model, request) if isinstance(model, Model) else _model_only(model, request)
    first_ms = _time(steps[0])
    for index in range(request.warmup):
        steps[index % len(steps)]()
    return _loop(steps, request, load_ms, first_ms, base)


def _loop(
    steps: Sequence[Callable[[], object]], request: Request, load_ms: float, first_ms: float, base: int
) -> Timing:
    deadline = time.monotonic() + request.max_seconds
    samples: list[float] = []
    size, energy, cpu = _status_bytes("VmRSS:"), energy_uj(), time.process_time()
    began = time.perf_counter_ns()
    while len(samples) < request.samples and (len(samples) < _MIN_SAMPLES or time.monotonic() < deadline):
        step = steps[len(samples) % len(steps)]
        if request.period_ms > 0:
            due = began + int(len(samples) * request.period_ms * 1e6)
            time.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
            step()
            samples.append(_since(due))
        else:
            samples.append(_time(step))
    loop_s, cpu_s = (time.perf_counter_ns() - began) / 1e9, time.process_time() - cpu
    after = energy_uj()
    joules = (after - energy) / 1e6 if energy is not None and after is not None and after >= energy else None
    grown = max(0, _status_bytes("VmRSS:") - size)
    return Timing(load_ms, first_ms, samples, peak_rss_bytes(), base, loop_s, cpu_s, grown, joules)


def energy_uj() -> int | None:
    """Return the energy counters of all processor packages in microjoules (RAPL), or None where none can be read."""
    counters = sorted(Path("/sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [counter for counter in counters if counter.name.count(":") == 1]
    try:
        return sum(int((package / "energy_uj").read_text()) for package in packages) if packages else None
    except (OSError, ValueError):
        return None


def peak_rss_bytes() -> int:
    """Return the largest resident size this program has had."""
    if found := _status_bytes("VmHWM:"):
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(field: str) -> int:
    """Return a size from /proc/self/status, 0 where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def main(arguments: Sequence[str]) -> int:
    """Run the request in `arguments[0]` (JSON) and print the timing, or the error, as one JSON line."""
    try:
        values = json.loads(arguments[0])
        texts = tuple(text if isinstance(text, str) else tuple(text) for text in values.get("texts", ()))
        timing = measure(Request(**{**values, "images": tuple(values.get("images", ())), "texts": texts}))
    except EdgeftError as error:
        sys.stdout.write(json.dumps({"error": error.message, "hint": error.hint, "exit_code": error.exit_code}) + "\n")
        return error.exit_code
    sys.stdout.write(json.dumps(asdict(timing)) + "\n")
    return 0


def _model_only(model: "AnyModel", request: Request) -> list[Callable[[], object]]:
    if request.inputs is None:
        values = {spec.name: _noise(spec) for spec in model.inputs}
    else:
        values = _read(request.inputs, model.inputs)
    return _rows(model.run, values, ragged=request.ragged)


def _rows(
    run: "Callable[[dict[str, Any]], object]", values: "dict[str, npt.NDArray[Any]]", *, ragged: bool
) -> list[Callable[[], object]]:
    count = min(map(len, values.values()))
    if ragged:
        from edgeft.runtime.encode import one_row

        return [partial(run, one_row(values, i)) for i in range(count)]
    return [partial(run, {name: array[i : i + 1] for name, array in values.items()}) for i in range(count)]


def _exporter_session(reference: str) -> Callable[[Path, int], Callable[[dict[str, Any]], object]]:
    """Return what opens a file in the runtime of the exporter "module:Class", its libraries imported.

    What idle threads do there is the runtime's own affair.
    """
    module, _, name = reference.partition(":")
    exporter = getattr(importlib.import_module(module), name)()
    exporter.fingerprint()  # imports the runtime, which is no part of opening a model
    session: Callable[[Path, int], Callable[[dict[str, Any]], object]] = exporter.session
    return session


def _read_named(path: str | None) -> "dict[str, npt.NDArray[Any]]":
    """Return the arrays of an .npz, by name."""
    import numpy as np

    if path is None:
        raise UsageError("a target's own runtime is timed on arrays by input name, and none were given")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}


def _end_to_end(model: "Model", request: Request) -> list[Callable[[], object]]:
    from edgeft.runtime.encode import contract_from_json, open_encoder

    if request.contract is None or (request.texts and request.tokenizer is None):
        raise UsageError("raw inputs are timed with an input contract, texts with a tokenizer, and none was given")
    tokenizer = None if request.tokenizer is None else Path(request.tokenizer).read_bytes()
    encode = open_encoder(contract_from_json(request.contract), tokenizer)

    def decide(source: object, name: str) -> int:
        return int(model.scores(encode(source, name))[0].argmax())

    named = [(Path(image), image) for image in request.images] + [
        (text, f"text {index}") for index, text in enumerate(request.texts)
    ]
    return [partial(decide, source, name) for source, name in named]


def _read(path: str, specs: "Sequence[TensorSpec]") -> "dict[str, npt.NDArray[Any]]":
    """Return what is fed, [M, ...] by input: the rows of the file."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {specs[0].name: loaded} if isinstance(loaded, np.ndarray) else loaded
        values = {spec.name: np.ascontiguousarray(arrays[spec.name]) for spec in specs}
    except (OSError, ValueError, KeyError) as error:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"{path}: nothing to time {names} with ({error})") from error
    rows = len(values[specs[0].name])
    for spec in specs:
        array = values[spec.name]
        sizes = zip(spec.shape[1:], array.shape[1:], strict=False)
        fits = array.ndim == len(spec.shape) and all(
            wanted == size or not isinstance(wanted, int) for wanted, size in sizes
        )
        if array.dtype != spec.dtype or not fits or len(array) != rows or not rows:
            raise UsageError(
                f"{path}: {spec.name}: {array.dtype} {array.shape}, "
                f"expected {spec.dtype} {list(spec.shape)} in {rows} rows"
            )
    return values


def _noise(spec: "TensorSpec") -> "npt.NDArray[Any]":
    import numpy as np

    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1:
        raise UsageError(f"{spec.name!r} has open sizes {list(spec.shape)}: give inputs to time it with")
    rng = np.random.default_rng(0)
    if spec.dtype.kind == "f":
        return rng.standard_normal((_NOISE_IMAGES, *sizes)).astype(spec.dtype)
    largest = 2 if spec.dtype.kind == "b" else np.iinfo(spec.dtype).max
    return rng.integers(0, largest, (_NOISE_IMAGES, *sizes)).astype(spec.dtype)


def _time(step: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    step()
    return _since(started)


def _since(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e6


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
