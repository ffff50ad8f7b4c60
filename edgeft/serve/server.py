"""The server process: one socket, one event loop, and a stop that answers what was taken in."""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from edgeft.core.errors import DeviceError
from edgeft.serve.app import Service
from edgeft.serve.opening import load
from edgeft.serve.options import Options


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that takes requests.

    Args:
        url: where.
        bundle: name of the bundle.
        content_digest: of its deterministic part.
    """

    url: str
    bundle: str
    content_digest: str


def serve(
    bundle: Path,
    host: str,
    port: int,
    options: Options,
    on_ready: Callable[[Ready], None],
    public_key: Path | None = None,
) -> None:
    """Serve the bundle folder `bundle` until SIGTERM or SIGINT.

    Args:
        bundle: the folder.
        host: address to bind.
        port: likewise; 0 takes a free one.
        options: the limits.
        on_ready: called once, when requests are taken.
        public_key: whose signature the bundle must carry; None asks for none.

    Raises:
        DeviceError: the address cannot be bound, or the bundle not be read.
        IntegrityError: see `load`.
        UsageError: see `load`.
    """
    with _bound(host, port) as listener:
        predictor = load(bundle, threads=options.threads, max_batch=options.max_batch, public_key=public_key)
        service = Service(predictor, options)
        shown = f"[{host}]" if ":" in host else host
        ready = Ready(url=f"http://{shown}:{listener.getsockname()[1]}", **service.identity)
        try:
            _Server(service, options, lambda: on_ready(ready)).run(sockets=[listener])
        finally:
            service.close()


class _Server(uvicorn.Server):
    """Ends with exit code 0 on a signal, which uvicorn would raise again; a second signal does not wait."""

    def __init__(self, service: Service, options: Options, on_started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                service.app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=math.ceil(options.grace_s) + 1,  # of connections that read no answer
            )
        )
        self._service, self._grace_s, self._on_started = service, options.grace_s, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stop(self._grace_s)
        await super().shutdown(sockets)


def _bound(host: str, port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where the protocol is named; else each answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise DeviceError(f"{host}:{port} cannot be bound ({error})", hint="--port 0 takes a free one") from error
    return listener
