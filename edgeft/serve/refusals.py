"""What a server answers where it does not decide: an HTTP status, a message and a hint.

    400  the body is no image, text or JSON        413  the body is larger than allowed
    408  the body did not come in time             503  too many wait, or the server is stopping: try again
    415  the body's type is another                504  no answer in time

Messages say what was sent and what was expected; they name nothing of the server's machine.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

_AGAIN = {"Retry-After": "1"}


class Refusal(Exception):  # noqa: N818 - it is an answer, as HTTP's other ones
    """A request that gets no decision.

    Args:
        status: HTTP's code.
        error: what was found and what was expected.
        hint: what to send instead, or when.
        headers: to send along.
    """

    def __init__(self, status: int, error: str, hint: str | None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.hint, self.headers = status, error, hint, headers

    def response(self) -> Response:
        """Return the answer."""
        return JSONResponse({"error": self.error, "hint": self.hint}, self.status, self.headers)


def full(places: int) -> Refusal:
    """Return the answer of a server that holds as many images or texts as it may."""
    return Refusal(503, f"{places} images or texts are in work or wait already", "send it again a little later", _AGAIN)


def stopping() -> Refusal:
    """Return the answer of a server that is asked to stop."""
    return Refusal(503, "the server is stopping", "send it again when it is back, or to another one", _AGAIN)


def body_late(timeout_ms: int) -> Refusal:
    """Return the answer where the body is still not whole at the deadline."""
    return Refusal(408, f"the body did not come within {timeout_ms} ms", "send a smaller one, or raise --timeout-ms")


def answer_late(timeout_ms: int) -> Refusal:
    """Return the answer where there is no decision at the deadline."""
    return Refusal(504, f"no decision within {timeout_ms} ms", "send fewer at once, or raise --timeout-ms")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    if not isinstance(error, HTTPException):
        raise error
    found = f"{request.method} {request.url.path}: {error.detail}"
    return Refusal(error.status_code, found, "POST /predict, GET /healthz or GET /metrics", error.headers).response()


async def on_any_exception(request: Request, error: Exception) -> Response:
    """Answer what should not have happened; the server's log has it whole."""
    del request, error
    return Refusal(500, "internal error", "the server's log shows where").response()
