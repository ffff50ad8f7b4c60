"""From a request's body to images or texts; its size is checked while it comes, not after."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect, Request

from edgeft.runtime.encode import Source
from edgeft.runtime.text import Text
from edgeft.serve.refusals import Refusal

Reader: TypeAlias = Callable[[bytes], list[Source]]

IMAGE_TYPES = ("application/octet-stream", "image/bmp", "image/jpeg", "image/png", "image/tiff", "image/webp")
TEXT_TYPES = ("application/json", "text/plain")
_PAIR = 2


def reader(request: Request, *, texts: bool) -> Reader:
    """Return what reads this request's body.

    Raises:
        Refusal: 415, the bundle takes another type.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = TEXT_TYPES if texts else IMAGE_TYPES
    if given in taken:
        return _images if not texts else _json if given == TEXT_TYPES[0] else _plain
    said = f"the body's type is {given or 'not given'}, this bundle decides {'texts' if texts else 'images'}"
    raise Refusal(415, said, f"Content-Type: one of {', '.join(taken)}")


async def read(request: Request, most: int) -> bytes:
    """Return the whole body.

    Raises:
        Refusal: 413, it has more than `most` bytes, which is found before more than that is held; 400, it breaks off.
    """
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    parts: list[bytes] = []
    try:
        if size <= most:
            size = 0
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    break
    except ClientDisconnect as error:
        raise Refusal(400, f"the body breaks off after {size} bytes", None) from error
    if size > most:
        raise Refusal(413, f"the body has more than {most} bytes", "send a smaller one, or raise --max-bytes")
    return b"".join(parts)


def _images(body: bytes) -> list[Source]:
    return [body]


def _plain(body: bytes) -> list[Source]:
    try:
        first, tab, second = body.decode().partition("\t")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the text is not UTF-8 ({error.reason} at byte {error.start})", None) from error
    return [(first, second) if tab else first]


def _json(body: bytes) -> list[Source]:
    hint = 'send {"texts": ["..."]}; two texts that are judged together as ["...", "..."]'
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON", hint) from error
    listed = given["texts"] if isinstance(given, dict) and set(given) == {"texts"} else None
    if not isinstance(listed, list) or not listed:
        raise Refusal(400, 'the body is not an object with the one key "texts", a list', hint)
    return [_text(item, index, hint) for index, item in enumerate(listed)]


def _text(item: Any, index: int, hint: str) -> Text:  # noqa: ANN401 - whatever JSON holds
    parts = item if isinstance(item, list) else [item]
    if not all(isinstance(part, str) for part in parts) or len(parts) not in {1, _PAIR}:
        raise Refusal(400, f"text {index} is neither a text nor two", hint)
    if any("\ud800" <= letter <= "\udfff" for part in parts for letter in part):
        raise Refusal(400, f"text {index} holds half of a surrogate pair, which is no letter", None)
    return (parts[0], parts[1]) if len(parts) == _PAIR else str(parts[0])
