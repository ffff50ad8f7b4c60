"""`edgeft serve`: a bundle behind HTTP."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edgeft.cli.options import Bundle, JsonFlag, RequireSignature, Threads

if TYPE_CHECKING:
    from edgeft.serve.server import Ready


def serve(
    bundle: Bundle,
    require_signature: RequireSignature = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Requests in work at once. [default: cores]")
    ] = None,
    threads: Threads = 1,
    queue: Annotated[
        int, typer.Option("--queue", metavar="N", min=0, help="Images or texts that may wait; more get 503.")
    ] = 32,
    max_bytes: Annotated[
        int | None,
        typer.Option("--max-bytes", metavar="N", min=1, help="Largest body. [default: 10 MiB, of texts 1 MiB]"),
    ] = None,
    max_batch: Annotated[
        int, typer.Option("--max-batch", metavar="N", min=1, help="Images that wait together are run as one batch.")
    ] = 1,
    max_wait_ms: Annotated[
        float, typer.Option("--max-wait-ms", metavar="MS", min=0, max=1000, help="How long a batch waits for more.")
    ] = 2.0,
    timeout_ms: Annotated[
        int, typer.Option("--timeout-ms", metavar="MS", min=1, help="A request without an answer by then gets 504.")
    ] = 10_000,
    grace_s: Annotated[
        float, typer.Option("--grace-s", metavar="S", min=0, help="When stopped, answer what was taken for so long.")
    ] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Answer HTTP requests with a bundle.

    The bundle is verified first, as by `edgeft verify`. POST /predict takes an image, or texts; GET /healthz and GET
    /metrics tell how the server is. It prints its address when it is ready, to stdout under --json, and ends with exit
    code 0 on SIGTERM or SIGINT.
    """
    from edgeft.cli.terminal import note, stdout_reserved
    from edgeft.core import machine
    from edgeft.serve.options import Options
    from edgeft.serve.server import serve as run

    options = Options(
        workers=workers or machine.threads(),
        threads=threads,
        queue=queue,
        max_bytes=max_bytes,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        timeout_ms=timeout_ms,
        grace_s=grace_s,
    )
    stdout = sys.stdout

    def announce(ready: "Ready") -> None:
        if as_json:
            typer.echo(json.dumps({"status": "ready", **asdict(ready)}, ensure_ascii=False), file=stdout)
        else:
            note(f"{ready.bundle} (content {ready.content_digest[:16]}) answers on {ready.url}")

    with stdout_reserved():
        run(bundle, host, port, options, announce, require_signature)
