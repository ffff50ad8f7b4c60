"""The root command: the one place where a failure becomes a message on stderr and an exit code."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from edgeft.cli.failure import INTERRUPTED, Failure, describe
from edgeft.cli.terminal import print_json

TRACEBACK_FLAG = "--traceback"
TRACEBACK_VARIABLE = "EDGEFT_TRACEBACK"


class Verbs(TyperGroup):
    """The verbs; each returns its exit code (None for 0) or raises.

    Unknown verbs and options name the nearest ones (Typer does that); everything else that ends a verb passes here.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - the signature is the base class's
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002 - the same
        **extra: Any,  # noqa: ANN401 - the same
    ) -> NoReturn:
        """Run the command line and exit the process with the verb's code."""
        del prog_name, standalone_mode
        typed = list(sys.argv[1:] if args is None else args)
        arguments = [word for word in typed if word != TRACEBACK_FLAG]  # accepted before and after the verb
        wants_traceback = len(arguments) < len(typed) or os.environ.get(TRACEBACK_VARIABLE, "") not in {"", "0"}
        try:
            code = super().main(arguments, "edgeft", complete_var, False, windows_expand_args, **extra)
            if code == INTERRUPTED:  # the base class turns KeyboardInterrupt into this
                raise KeyboardInterrupt  # noqa: TRY301 - handled with the others just below
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the process's last line of defence
            if wants_traceback:
                traceback.print_exc()
            sys.exit(_report(describe(error, shlex.join(arguments)), as_json="--json" in arguments))
        sys.exit(code or 0)


def _report(failure: Failure, *, as_json: bool) -> int:
    typer.echo(f"error: {failure.message}", err=True)
    if failure.hint:
        typer.echo(f"hint: {failure.hint}", err=True)
    if as_json:
        print_json(failure.to_json())
    return failure.exit_code
