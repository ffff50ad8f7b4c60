"""Speed of int8 against float in onnxruntime, by network: edgeft's variants, and onnxruntime's own quantizer.

    python benchmarks/quantize/speed.py [--nets mobilenetv2_100,vit_tiny_patch16_224] [--rounds 15] [--json OUT]

Weights are random (speed does not depend on them), calibration is seeded noise, inputs are 224 px or 128 tokens. All
variants of a network run in one process, one thread, batch 1, in turns (forth and back); a round's ratio is fp32's
median over the variant's, and the table gives the median over rounds with a bootstrap interval. SQNR is that of the
logits on eight unseen inputs: with random weights it ranks variants, it promises nothing about a trained network.
Weights of full range are the same graph without the pair rule: as fast, and other numbers where int16 saturates.
onnxruntime's quantizer is called as its documentation says for CPUs without VNNI: U8S8, per channel, reduce_range,
min-max; `quantize_dynamic` for transformers.
"""

import argparse
import json
import platform
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import timm
import torch
import torchvision
from onnxruntime import quantization as ort_quantization
from transformers import BertConfig, BertModel

from edgeft import catalog
from edgeft.core import machine
from edgeft.graph.execute import open_session
from edgeft.graph.passes.swap_activations import swap_activations_
from edgeft.graph.simplify import simplify_
from edgeft.graph.trace import trace
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Judged
from edgeft.quantize.dynamic import is_transformer
from edgeft.quantize.ladder import climb, method_for
from edgeft.quantize.on_target import this_device
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.rungs import Ladder
from edgeft.verify.numerics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable

NETS = (
    *("resnet18", "mobilenetv2_100", "tf_efficientnet_lite0", "mobilenetv3_large_100", "efficientnet_b0"),
    *("convnext_atto", "vit_tiny_patch16_224", "minilm"),
)
SIDE, TOKENS, WIDTH, OPSET = 224, 128, 384, 20
CALIBRATION, UNSEEN, PER_ROUND = 32, 8, 5


def float_graph(name: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    if name == "minilm":
        model = _minilm()
    else:
        net = torchvision.models.resnet18() if name == "resnet18" else timm.create_model(name)
        _settle_(net)
        model = trace(net.eval(), SIDE, SIDE, OPSET)
    simplify_(model)
    return ir.to_proto(model)


def _settle_(net: torch.nn.Module) -> None:
    """Give BatchNorm the statistics of noise, so that activations keep their size through a random network."""
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.randn(8, 3, SIDE, SIDE))


def _minilm() -> ir.Model:
    """all-MiniLM-L6-v2's shape, from embeddings on."""

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = BertConfig(
                attn_implementation="eager",
                vocab_size=8,
                hidden_size=WIDTH,
                num_hidden_layers=6,
                num_attention_heads=12,
                intermediate_size=1536,
            )
            self.net = BertModel(config, add_pooling_layer=False).encoder

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).last_hidden_state.mean(dim=1)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Encoder().eval(),
            (torch.zeros(2, TOKENS, WIDTH),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            optimize=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - the stub allows it
    return program.model


def ours(
    graph: onnx.ModelProto, x: np.ndarray, *, search: bool = False, target: str = "onnx"
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    exporter, rows = catalog.exporter(target), ArrayRows("x", x)
    device = this_device(exporter, rows, 1) if search else None
    int8 = Ladder(
        exporter.placement, method_for(graph, exporter.placement, "int8", "auto", CALIBRATION), rows, device=device
    )
    (rung,) = climb(graph, int8, lambda model: Judged(model, None, {}), execution=Execution(2))
    return rung.judged.model, rung.notes


def theirs(graph: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    class Reader(ort_quantization.CalibrationDataReader):
        rows = iter(x)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {"x": row[None]}

    options: dict[str, Any] = {"per_channel": True, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, source)
        if is_transformer(graph):
            ort_quantization.quantize_dynamic(source, out, weight_type=ort_quantization.QuantType.QInt8, **options)
        else:
            static = ort_quantization.QuantFormat.QDQ
            ort_quantization.quantize_static(source, out, Reader(), quant_format=static, **options)
        return onnx.load(out)


def swapped(graph: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return `graph` with Relu for HardSwish and SiLU, not healed, or None where it has neither."""
    model = ir.from_proto(graph)
    return ir.to_proto(model) if swap_activations_(model) else None


def opened(variant: str, model: onnx.ModelProto) -> "Callable[[np.ndarray], np.ndarray]":
    """Return what runs `model` on one thread, in the runtime that the variant is for."""
    if not variant.endswith("OpenVINO"):
        session = open_session(model, 1)
        return lambda row: session.run(["logits"], {"x": row})[0]
    exporter, index = catalog.exporter("openvino"), [value.name for value in model.graph.output].index("logits")
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        run = exporter.session(Path(folder) / "model.onnx", 1)
    return lambda row: run({"x": row})[index]


def race(models: dict[str, onnx.ModelProto], x: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Return each variant's median milliseconds by round."""
    sessions = {name: opened(name, model) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    order = [*sessions, *reversed(list(sessions))]
    for number in range(rounds + 1):
        samples: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(PER_ROUND):
            for name in order:
                row = x[number % len(x)][None]
                started = time.perf_counter_ns()
                sessions[name](row)
                samples[name].append((time.perf_counter_ns() - started) / 1e6)
        if number:  # the first round warms up
            for name, of in samples.items():
                found[name].append(float(np.median(of)))
    return {name: np.array(of) for name, of in found.items()}


def ratio(base: np.ndarray, new: np.ndarray) -> tuple[float, float, float]:
    """Return the median of base / new over rounds, and its 95 % bootstrap interval."""
    ratios, rng = base / new, np.random.default_rng(0)
    drawn = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    return float(np.median(ratios)), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def measure(name: str, rounds: int) -> dict[str, Any]:
    graph = float_graph(name)
    shape = (TOKENS, WIDTH) if name == "minilm" else (3, SIDE, SIDE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CALIBRATION + UNSEEN, *shape)).astype(np.float32)
    known, unseen = x[:CALIBRATION], x[CALIBRATION:]
    makers: dict[str, Callable[[], Any]] = {"edgeft": lambda: ours(graph, known)}
    if not is_transformer(graph):
        makers["edgeft, search"] = lambda: ours(graph, known, search=True)
        makers["edgeft, weights of full range"] = lambda: ours(graph, known, target="onnx-vnni")
        makers["edgeft, in OpenVINO"] = lambda: ours(graph, known, target="openvino")
    relu = swapped(graph)
    if relu is not None:
        makers["edgeft, swapped activations"] = lambda: ours(relu, known)
    makers["onnxruntime"] = lambda: (theirs(graph, known), ())
    models, seconds, notes = {"fp32": graph}, {}, {}
    for variant, make in makers.items():
        started = time.perf_counter()
        models[variant], notes[variant] = make()
        seconds[variant] = time.perf_counter() - started
    times = race(models, unseen, rounds)
    expected = open_session(graph, 1).run(["logits"], {"x": unseen})[0]
    rows = {}
    for variant in makers:
        run = opened(variant, models[variant])
        logits = np.concatenate([run(row[None]) for row in unseen])
        healed = "swapped" not in variant  # nothing heals random weights
        value, low, high = ratio(times["fp32"], times[variant])
        rows[variant] = {
            "speed": value,
            "interval": [low, high],
            "sqnr_db": sqnr_db(expected, logits) if healed else None,
            "seconds": seconds[variant],
            "notes": [note for note in notes[variant] if note.startswith("search")],
        }
    return {"net": name, "fp32_ms": float(np.median(times["fp32"])), "variants": rows}


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| net | fp32 | variant | speed | SQNR | made in |", "|---|---|---|---|---|---|"]
    for item in found:
        for variant, row in item["variants"].items():
            low, high = row["interval"]
            sqnr = "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
            lines.append(
                f"| {item['net']} | {item['fp32_ms']:.2f} ms | {variant} | {row['speed']:.2f}x ({low:.2f} to "
                f"{high:.2f}) | {sqnr} | {row['seconds']:.0f} s |"
            )
            lines += [f"|  |  |  | {note} |  |  |" for note in row["notes"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    facts = catalog.exporter("onnx").fingerprint()
    print(f"{facts['cpu']}, {facts['isa']}, onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}")
    found = []
    for name in given.nets.split(","):
        found.append(measure(name, given.rounds))
        print(table(found[-1:]), flush=True)
    print("\n" + table(found))
    if given.json:
        given.json.write_text(
            json.dumps({"machine": machine.facts(), "runtime": facts, "nets": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
