"""Options that several verbs share: one name, one help text."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.core.metrics import Metric

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder with recipe.yaml, a recipe file, or bare data.")]

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, as `edgeft build` wrote it.")]

JudgedBy = Annotated[Metric, typer.Option("--metric", help="What may not drop.")]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one recipe key, e.g. finetune.epochs=3; repeatable."),
]

Smoke = Annotated[bool, typer.Option("--smoke", help="Shrink data and training to about a minute.")]

BudgetMs = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        metavar="MS",
        help="Ship a student that takes at most so long: distill.student=auto and distill.budget_ms.",
    ),
]

Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Override the recipe's seed.")]

Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Where finished stages are kept. [default: .edgeft beside the recipe]"),
]

Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads for the model.")]

RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="KEY.pub",
        envvar="EDGEFT_REQUIRE_SIGNATURE",
        help="Refuse a bundle that the holder of this key did not sign.",
    ),
]

Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where: local, ssh://user@host[:port][/path/to/python], or a name (`edgeft devices`).",
    ),
]

SshConfig = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config",
        metavar="FILE",
        envvar="EDGEFT_SSH_CONFIG",
        exists=True,
        dir_okay=False,
        help="Of --device: OpenSSH's configuration, instead of the user's own.",
    ),
]

Strict = Annotated[bool, typer.Option("--strict", help="Exit 7 where a gate is INCONCLUSIVE.")]

Mean = Annotated[
    str | None, typer.Option("--mean", metavar="M[,M,M]", help="Mean of images for a float input, 0 to 255.")
]

Std = Annotated[
    str | None, typer.Option("--std", metavar="S[,S,S]", help="Standard deviation of such images, 0 to 255.")
]
