"""`edgeft quantize`: int8, int4 or fp16 for any ONNX classifier or encoder, without a recipe."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeft.cli.ci import Github, Junit, Summary
from edgeft.cli.options import JsonFlag, Mean, Std, Strict, Threads

Method = Literal[
    "auto",
    "minmax",
    "percentile",
    "entropy",
    "mse",
    "output_error",
    "gptq",
    "qat",
    "dynamic",
    "weight_only",
    "int4",
    "fp16",
]

_DATA = "an .npz or .npy as the model takes it, or a folder of images"


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float classifier or encoder.")],
    calib: Annotated[Path, typer.Option("--calib", metavar="DATA", help=f"Calibrates: {_DATA}.", show_default=False)],
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", metavar="DATA", help="Compares with fp32; with labels it measures accuracy."),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="The runtime.")] = "onnx",
    max_drop_pp: Annotated[
        float, typer.Option("--max-drop-pp", min=0.01, help="Accuracy that may be lost, in percentage points.")
    ] = 1.0,
    method: Annotated[Method, typer.Option("--method", help="How int8 is made, or int4 or fp16.")] = "auto",
    images: Annotated[int, typer.Option("--images", metavar="N", min=1, help="Calibration inputs at most.")] = 256,
    mean: Mean = None,
    std: Std = None,
    input_shape: Annotated[
        str | None,
        typer.Option("--input-shape", metavar="C,H,W", help="Sizes after the batch, where the model leaves them open."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The folder to write. [default: MODEL-quantized beside the model]"),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Leave in float what is measured to be faster in float on this device.")
    ] = False,
    float_share: Annotated[
        float | None,
        typer.Option(
            "--float-share",
            min=0,
            max=1,
            help="Share of the multiplications that may stay in float. [default: 0.08, 0 for transformers]",
        ),
    ] = None,
    swap_activations: Annotated[
        bool,
        typer.Option("--swap-activations", help="Put Relu for HardSwish and SiLU, and heal it by training: faster."),
    ] = False,
    threads: Threads = 1,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Time nothing; the smallest file may ship.")] = False,
    strict: Strict = False,
    junit: Junit = None,
    summary: Summary = None,
    github: Github = False,
    as_json: JsonFlag = False,
) -> int:
    """Quantize an ONNX model and measure it.

    Writes DIR/model.onnx (the quantized model where it is faster and holds the margin, else the float model),
    candidates/, report.json and report.html.

    Exit codes: 0 ok; 2 usage; 3 model or data; 4 environment; 5 more than the margin is lost; 6 slower than float;
    7 inconclusive under --strict.
    """
    from edgeft.cli.ci import tell
    from edgeft.cli.numbers import counts, numbers
    from edgeft.cli.progress import narrate
    from edgeft.cli.summary import quantize_object, quantize_text
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.pipeline.quantize import Request
    from edgeft.pipeline.quantize import quantize as run_quantize

    request = Request(
        model=model,
        calibration=calib,
        evaluation=evaluation,
        out=out or model.parent / f"{model.stem}-quantized",
        target=target,
        max_drop_pp=max_drop_pp,
        precision=method if method in {"int4", "fp16"} else "int8",
        method="auto" if method in {"int4", "fp16"} else method,
        threads=threads,
        images=images,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        sizes=counts("--input-shape", input_shape),
        latency=not no_latency,
        search=search,
        float_share=float_share,
        swap_activations=swap_activations,
        strict=strict,
    )
    with stdout_reserved(), narrate() as emit:
        record = run_quantize(request, emit=emit)
    tell(record, junit=junit, summary=summary, github=github)
    conclude(quantize_text(record), quantize_object(record), record["model"], as_json=as_json)
    return int(record["exit_code"])
