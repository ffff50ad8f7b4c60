"""Methods that do almost nothing, so that the engine can be tried without a training library."""

import json
import time
from pathlib import Path

from edgeft.config import Config
from edgeft.core.events import Message
from edgeft.core.stage import Context, Inputs, Json, Method, StageResult


class SplitConfig(Config):
    train: float = 0.6
    by: str = "group"


class DataConfig(Config):
    source: str
    images: str | None = None
    split: SplitConfig = SplitConfig()
    ok_class: str | None = None
    limit: int | None = None
    input: dict | None = None


class TrainConfig(Config):
    epochs: int = 3
    lr: float = 1e-3
    model: dict
    pause: float = 0.0


class OtherTrainConfig(TrainConfig):
    depth: int = 1


class EmptyConfig(Config):
    pass


class LimitConfig(Config):
    max_escape: float


class CompressConfig(Config):
    precision: str = "int8"
    method: str = "auto"
    metric: str = "accuracy"
    max_drop_pp: float = 2.0


class TargetConfig(Config):
    target: str = "onnx"
    verdict: str = "PASS"


METHODS = (
    Method("data", "images", "toy_room:DataConfig", "toy_room:data", 1),
    Method("finetune", "gradual", "toy_room:TrainConfig", "toy_room:train", 1, ("pytest",)),
    Method("finetune", "frozen", "toy_room:OtherTrainConfig", "toy_room:train", 1),
    Method("export", "onnx", "toy_room:EmptyConfig", "toy_room:export", 1),
    Method("compress", "auto", "toy_room:CompressConfig", "toy_room:compress", 1),
    Method("choose", "fastest", "toy_room:TargetConfig", "toy_room:choose", 1),
    Method("lower", "onnx", "toy_room:TargetConfig", "toy_room:lower", 1),
    Method("decide", "argmax", "toy_room:EmptyConfig", "toy_room:decide", 1),
    Method("decide", "threshold", "toy_room:LimitConfig", "toy_room:decide", 1),
    Method("verify", "parity", "toy_room:TargetConfig", "toy_room:verify", 1),
)


class ToyExporter:
    """A target whose facts never change."""

    cross = False

    def fingerprint(self) -> dict[str, Json]:
        return {"runtime": "onnxruntime", "version": "toy 1"}


def _done(ctx: Context, stage: str, **measurements: Json) -> StageResult:
    ctx.emit(Message(f"ran {stage}"))
    return StageResult(ctx.folder, measurements=measurements, notes=(f"note of {stage}",), timings={"ms": time.time()})


def _dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def data(ctx: Context, inputs: Inputs, _config: DataConfig) -> StageResult:
    images = sorted(path.name for path in inputs["images"].iterdir() if path.suffix == ".png")
    _dump(ctx.folder / "dataset.json", {"n": len(images), "counts": {"test": {"ok": len(images)}}, "classes": ["ok"]})
    return _done(ctx, "data", n=len(images))


def train(ctx: Context, inputs: Inputs, config: TrainConfig) -> StageResult:
    state = ctx.workspace / "epoch.json"
    first = json.loads(state.read_text()) if state.exists() else 0
    if first:
        ctx.emit(Message(f"resumed at epoch {first}"))
    for epoch in range(first, config.epochs):
        time.sleep(config.pause)
        partial = ctx.workspace / "epoch.tmp"
        _dump(partial, epoch + 1)
        partial.replace(state)
        (ctx.folder / "half-written").write_text("x" * 1000)
    (ctx.folder / "half-written").unlink(missing_ok=True)
    text = json.dumps([config.lr, config.epochs, ctx.seed, (inputs["data"] / "dataset.json").read_text()])
    (ctx.folder / "model.safetensors").write_text(text)
    _dump(ctx.folder / "history.json", [{"epoch": 1}])
    return _done(ctx, "finetune")


def export(ctx: Context, inputs: Inputs, _config: EmptyConfig) -> StageResult:
    # Keeps the epochs only: a new learning rate yields the same bytes here.
    epochs = json.loads((inputs["checkpoint"] / "model.safetensors").read_text())[1]
    (ctx.folder / "model.onnx").write_text(str(epochs))
    return _done(ctx, "export")


def compress(ctx: Context, inputs: Inputs, config: CompressConfig) -> StageResult:
    model = (inputs["graph"] / "model.onnx").read_text()
    for name in ("fp32", config.precision):
        _dump(ctx.folder / "candidates" / name / "model.onnx", model + name)
    _dump(ctx.folder / "candidates.json", {"schema": 1, "candidates": [{"name": "fp32"}, {"name": config.precision}]})
    return _done(ctx, "compress")


def choose(ctx: Context, _inputs: Inputs, _config: TargetConfig) -> StageResult:
    _dump(ctx.folder / "choice.json", {"chosen": "int8", "reason": "toy", "latency": {}})
    return _done(ctx, "choose")


def lower(ctx: Context, _inputs: Inputs, config: TargetConfig) -> StageResult:
    _dump(ctx.folder / config.target / "lint.json", [])
    _dump(ctx.folder / config.target / "model.onnx", "lowered")
    return _done(ctx, "lower")


def decide(ctx: Context, _inputs: Inputs, _config: EmptyConfig) -> StageResult:
    _dump(ctx.folder / "decision.json", {"shipped": {"method": "argmax"}})
    return _done(ctx, "decide")


def verify(ctx: Context, _inputs: Inputs, config: TargetConfig) -> StageResult:
    gate = {
        "name": "accuracy", "verdict": config.verdict, "value": 0.1, "interval": [0.0, 0.3], "limit": 2.0,
        "unit": "pp", "n": 9, "detail": "toy", "exit_code": 5,
    }  # fmt: skip
    _dump(ctx.folder / "verify.json", {"schema": 1, "n": 9, "gates": [gate]})
    return _done(ctx, "verify")
