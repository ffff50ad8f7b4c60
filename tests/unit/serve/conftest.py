"""A service on a tiny bundle, callers in its event loop, and an encoder that a test can hold back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgeft.runtime import load
from edgeft.serve.app import Service
from edgeft.serve.options import Options


class Held:
    """An encoder that waits until it is let go; `began` counts what reached it."""

    def __init__(self, encode: Any) -> None:  # noqa: ANN401 - an encoder
        self._encode, self._go, self.began = encode, threading.Event(), 0

    def __call__(self, source: Any, name: str) -> Any:  # noqa: ANN401 - as an encoder
        self.began += 1
        assert self._go.wait(60)
        return self._encode(source, name)

    def let_go(self) -> None:
        self._go.set()


class Serving:
    """A service, and its encoder."""

    def __init__(self, service: Service, held: Held) -> None:
        self.service, self.held = service, held

    @property
    def taken(self) -> int:
        return self.service._desk.places.taken

    @property
    def waiting(self) -> int:
        return self.service._desk.waiting

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(app=self.service.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as client:
            yield client

    async def until(self, *, began: int = 0, waiting: int | None = None, taken: int | None = None) -> None:
        """Wait until so many reached the encoder, stand in line and are in the server."""
        async with asyncio.timeout(60):
            while (  # noqa: ASYNC110 - threads change it, which no asyncio.Event can tell
                self.held.began < began or waiting not in {None, self.waiting} or taken not in {None, self.taken}
            ):
                await asyncio.sleep(0.002)


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    """Make services; a held one decides nothing before it is let go."""
    made: list[Serving] = []

    def make(bundle: Path, *, held: bool = False, **options: Any) -> Serving:  # noqa: ANN401 - of Options
        predictor = load(bundle)
        predictor.encode = encode = Held(predictor.encode)
        if not held:
            encode.let_go()
        made.append(Serving(Service(predictor, Options(**options)), encode))
        return made[-1]

    yield make
    for one in made:
        one.held.let_go()
        one.service.close()


@pytest.fixture
def image(tiny_images: Path) -> bytes:
    return (tiny_images / "red" / "0.png").read_bytes()
