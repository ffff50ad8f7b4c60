"""`edgeft bench` and `edgeft compare`: how fast a model is here, and whether a new one is slower or worse."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeft.cli.ci import Github, Junit, Summary
from edgeft.cli.options import Device, JsonFlag, JudgedBy, SshConfig, Strict, Threads

_DATA = "golden (the bundle's own images), noise, a folder of images, or an .npz of inputs"
_LABELLED = "a folder with one folder of images for each class, or an .npz of pixels and labels"

Subject = Annotated[Path, typer.Argument(metavar="BUNDLE|MODEL.onnx", help="What to measure.", show_default=False)]
Here = Annotated[str, typer.Option("--device", metavar="DEVICE", help="Where: local. Two models need one machine.")]
Input = Annotated[str | None, typer.Option("--input", metavar="DATA", help=f"What is timed: {_DATA}.")]
Spinning = Annotated[bool, typer.Option("--spinning", help="Let idle threads spin: faster and hotter.")]


def bench(
    subject: Subject,
    device: Device = "local",
    mode: Annotated[
        Literal["single", "paced", "soak"],
        typer.Option("--mode", help="Back to back; one image every --period-ms; or back to back for --seconds."),
    ] = "single",
    data: Input = None,
    period_ms: Annotated[
        float | None, typer.Option("--period-ms", metavar="MS", help="Of --mode paced: between two images.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Of --mode soak.")] = 60.0,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Fresh processes.")] = 5,
    samples: Annotated[int, typer.Option("--samples", min=5, help="Images timed in each process.")] = 60,
    threads: Threads = 1,
    spinning: Spinning = False,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", metavar="DATA", help=f"Of --save-baseline, for accuracy: {_LABELLED}.")
    ] = None,
    save_baseline: Annotated[
        Path | None,
        typer.Option("--save-baseline", metavar="FILE.json", help="Keep what `edgeft compare` needs of this model."),
    ] = None,
    ssh_config: SshConfig = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a bundle or a model on this device.

    Latency of the model alone and from raw files, with intervals; throughput, load time, first inference, memory;
    energy and instructions where the machine can count them.

    Exit codes: 0 ok; 2 usage; 3 data; 4 environment; 8 a bundle is not what was built.
    """
    from edgeft.cli.known import address_of
    from edgeft.cli.measured import bench_text
    from edgeft.cli.progress import narrate
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.pipeline.bench import Options, measure

    options = Options(
        mode=mode,
        inputs=data,
        period_ms=period_ms,
        seconds=seconds,
        processes=processes,
        samples=samples,
        threads=threads,
        spinning=spinning,
        evaluation=evaluation,
        baseline=save_baseline,
        device=address_of(device),
        ssh_config=ssh_config,
    )
    with stdout_reserved(), narrate() as emit:
        record = measure(subject, options, emit=emit)
    conclude(bench_text(record), record, str(save_baseline or subject), as_json=as_json)


def compare(
    base: Annotated[
        Path,
        typer.Argument(
            metavar="BASE", help="A bundle, an .onnx file, or a baseline (.json) by `edgeft bench`.", show_default=False
        ),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A bundle or an .onnx file.", show_default=False)],
    max_slowdown: Annotated[
        str, typer.Option("--max-slowdown", metavar="SHARE", help="How much longer NEW may take, e.g. 5%.")
    ] = "5%",
    max_drop_pp: Annotated[
        float, typer.Option("--max-drop-pp", min=0.01, help="Of the metric that may be lost, in percentage points.")
    ] = 0.5,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", metavar="DATA", help=f"Judges accuracy: {_LABELLED}.")
    ] = None,
    metric: JudgedBy = "accuracy",
    data: Input = None,
    device: Here = "local",
    rounds: Annotated[
        str, typer.Option("--rounds", metavar="N,N,...", help="Rounds after which a verdict is sought.")
    ] = "9,15,25,40",
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Time nothing.")] = False,
    threads: Threads = 1,
    spinning: Spinning = False,
    strict: Strict = False,
    junit: Junit = None,
    summary: Summary = None,
    github: Github = False,
    as_json: JsonFlag = False,
) -> int:
    """Judge whether NEW is slower or worse than BASE.

    PASS, FAIL or INCONCLUSIVE, each from an interval. Latency: rounds of fresh processes in the order base, new, new,
    base, until the interval is clear of the limit; a FAIL is measured a second time. Accuracy: a paired test on --eval
    data that the drop is within the margin.

    Exit codes: 0 ok; 2 usage; 3 data; 4 environment; 5 accuracy fails; 6 latency fails; 7 inconclusive under --strict;
    8 a bundle or a baseline was changed.
    """
    from edgeft.cli.ci import tell
    from edgeft.cli.measured import compare_text
    from edgeft.cli.numbers import counts, share
    from edgeft.cli.progress import narrate
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.pipeline.bench import require_local
    from edgeft.pipeline.compare import Options
    from edgeft.pipeline.compare import compare as run_compare

    require_local(device)
    options = Options(
        max_slowdown=share("--max-slowdown", max_slowdown),
        max_drop_pp=max_drop_pp,
        metric=metric,
        evaluation=evaluation,
        inputs=data,
        threads=threads,
        spinning=spinning,
        rounds=counts("--rounds", rounds) or (),
        latency=not no_latency,
        strict=strict,
    )
    with stdout_reserved(), narrate() as emit:
        record = run_compare(base, new, options, emit=emit)
    tell(record, junit=junit, summary=summary, github=github)
    conclude(compare_text(record), record, record["status"], as_json=as_json)
    return int(record["exit_code"])
