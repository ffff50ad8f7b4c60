"""`edgeft merge`: adapters and their base become one model, those of several sites on average."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.options import JsonFlag, Threads


def merge(
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="WEIGHTS",
            help="What they were trained beside, as in model.weights: a file, a folder, or package:NAME/path.",
        ),
    ],
    adapters: Annotated[
        list[Path],
        typer.Option("--adapter", metavar="DIR", help="What `edgeft build --adapters DIR` wrote; once for each site."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The checkpoint's folder, new or empty.")],
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="W,W,...", help="Weight of each. [default: rows that it was trained on]"),
    ] = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Merge adapters into their base, without data.

    LoRA and IA3 are folded into the weights; adapter, prompt and prefix stay in the model. Several are averaged,
    weighted by the rows each was trained on: sites share adapters, and keep their data. Build from the result with
    `finetune: {method: none}` and `model.weights: DIR`.

    Exit codes: 0 ok; 1 the merge changes what the model computes, or nothing; 2 usage; 3 adapters or weights.
    """
    from edgeft.cli.numbers import numbers
    from edgeft.cli.tables import table
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.pipeline.merge import merge as run_merge

    with stdout_reserved():
        found = run_merge(base, adapters, out, shares=numbers("--weights", weights) or (), threads=threads)
    rows = [
        (Path(each["adapter"]).name, f"{each['share']:.1%}", str(each["layers"]), f"{each['max_abs_logit_change']:.3g}")
        for each in found["adapters"]
    ]
    text = table(("adapter", "weight", "places", "largest change of a logit"), rows, right=("weight", "places"))
    conclude(f"{text}\n\ncheckpoint  {found['out']}", found, str(found["out"]), as_json=as_json)
