"""The limits: size while it streams, places, deadlines, and a server that stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from edgeft.serve.app import Service
from edgeft.serve.options import IMAGE_BYTES, TEXT_BYTES, Options

Make = Callable[..., Any]
PNG = {"content-type": "image/png"}


async def endless(part: bytes, taken: list[int]) -> AsyncIterator[bytes]:
    while True:
        taken.append(len(part))
        yield part


def test_a_body_over_the_limit_is_refused_while_it_streams(serving: Make, tiny_bundle: Path) -> None:
    one = serving(tiny_bundle, max_bytes=1000)
    taken: list[int] = []

    async def go() -> tuple[int, dict[str, Any]]:
        async with one.caller() as client:
            found = await client.post("/predict", content=endless(bytes(300), taken), headers=PNG)
            return found.status_code, found.json()

    status, answer = asyncio.run(go())
    assert (status, answer["error"]) == (413, "the body has more than 1000 bytes")
    assert sum(taken) == 1200
    assert one.taken == 0


def test_a_body_of_just_the_limit_is_taken(serving: Make, tiny_bundle: Path, image: bytes) -> None:
    async def go(one: Any) -> int:  # noqa: ANN401 - see conftest
        async with one.caller() as client:
            return (await client.post("/predict", content=image, headers=PNG)).status_code

    assert asyncio.run(go(serving(tiny_bundle, max_bytes=len(image)))) == 200
    assert asyncio.run(go(serving(tiny_bundle, max_bytes=len(image) - 1))) == 413


async def posted(service: Service, headers: dict[str, str], *messages: Message) -> tuple[int, list[Message]]:
    """Post without a client between; return the status and the messages that were left unread."""
    left, sent = list(messages), list[Message]()

    async def receive() -> Message:
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "root_path": "",
             "query_string": b"", "headers": raw, "scheme": "http", "server": ("edge", 80)}  # fmt: skip
    await service.app(scope, receive, send)
    return sent[0]["status"], left


def test_a_body_that_says_it_is_too_large_is_not_read(serving: Make, tiny_bundle: Path) -> None:
    part: Message = {"type": "http.request", "body": b"x", "more_body": True}
    headers = {**PNG, "content-length": "1001"}
    one = serving(tiny_bundle, max_bytes=1000)
    assert asyncio.run(posted(one.service, headers, part)) == (413, [part])


def test_a_caller_that_goes_away_leaves_its_place(serving: Make, tiny_bundle: Path) -> None:
    part: Message = {"type": "http.request", "body": b"x", "more_body": True}
    one = serving(tiny_bundle)
    assert asyncio.run(posted(one.service, PNG, part, {"type": "http.disconnect"})) == (400, [])
    assert one.taken == 0


def test_the_largest_body_depends_on_what_is_decided() -> None:
    assert Options().most_bytes(texts=False) == IMAGE_BYTES == 10 * 2**20
    assert Options().most_bytes(texts=True) == TEXT_BYTES == 2**20
    assert Options(max_bytes=7).most_bytes(texts=True) == 7


def test_when_all_places_are_taken_it_is_503_with_retry_after(serving: Make, tiny_bundle: Path, image: bytes) -> None:
    one = serving(tiny_bundle, held=True, workers=1, queue=2)

    async def go() -> tuple[Any, list[int], str]:
        async with one.caller() as client:
            taken = [asyncio.create_task(client.post("/predict", content=image, headers=PNG)) for _ in range(3)]
            await one.until(began=1, waiting=2)
            page = (await client.get("/metrics")).text
            refused = await client.post("/predict", content=endless(image, []), headers=PNG)  # before its body is read
            one.held.let_go()
            return refused, [found.status_code for found in await asyncio.gather(*taken)], page

    refused, statuses, page = asyncio.run(go())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == "3 images or texts are in work or wait already"
    assert statuses == [200, 200, 200]
    assert "edgeft_queue_depth 2.0" in page
    assert "edgeft_in_flight 3.0" in page
    assert one.taken == 0


def test_more_texts_than_free_places_are_503(serving: Make, text_bundle: Path) -> None:
    one = serving(text_bundle, held=True, workers=1, queue=2)

    async def go() -> list[int]:
        async with one.caller() as client:
            first = asyncio.create_task(client.post("/predict", json={"texts": ["red", "blue"]}))
            await one.until(began=1)
            second = await client.post("/predict", json={"texts": ["red", "blue"]})
            one.held.let_go()
            return [(await first).status_code, second.status_code]

    assert asyncio.run(go()) == [200, 503]
    assert one.taken == 0


def test_an_answer_that_comes_too_late_is_504_and_what_waits_is_dropped(
    serving: Make, tiny_bundle: Path, image: bytes
) -> None:
    one = serving(tiny_bundle, held=True, workers=1, timeout_ms=50)

    async def go() -> list[tuple[int, str]]:
        async with one.caller() as client:
            late = await asyncio.gather(*(client.post("/predict", content=image, headers=PNG) for _ in range(3)))
            one.held.let_go()
            await one.until(taken=0)
            return [(found.status_code, found.json()["error"]) for found in late]

    assert asyncio.run(go()) == [(504, "no decision within 50 ms")] * 3
    assert one.held.began == 1


def test_a_body_that_comes_too_late_is_408(serving: Make, tiny_bundle: Path) -> None:
    one = serving(tiny_bundle, timeout_ms=50)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def go() -> tuple[int, str]:
        async with one.caller() as client:
            found = await client.post("/predict", content=slow(), headers=PNG)
            return found.status_code, found.json()["error"]

    assert asyncio.run(go()) == (408, "the body did not come within 50 ms")
    assert one.taken == 0


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
def test_a_stopping_server_takes_nothing_in_and_refuses_what_its_grace_leaves(
    serving: Make, tiny_bundle: Path, image: bytes, grace_s: float
) -> None:
    one = serving(tiny_bundle, held=True, workers=1)

    async def go() -> tuple[list[Any], list[Any]]:
        async with one.caller() as client:
            taken = [asyncio.create_task(client.post("/predict", content=image, headers=PNG)) for _ in range(2)]
            await one.until(began=1, waiting=1)
            one.service.stop(grace_s)
            late = [await client.post("/predict", content=image, headers=PNG), await client.get("/healthz")]
            if grace_s:
                one.held.let_go()
            return late, await asyncio.gather(*taken)

    late, taken = asyncio.run(go())
    refused = late if grace_s else [*late, *taken]
    for one in refused:
        assert (one.status_code, one.headers["retry-after"]) == (503, "1")
        assert one.json()["error"] == "the server is stopping"
    assert [one.status_code for one in taken] == ([200, 200] if grace_s else [503, 503])
