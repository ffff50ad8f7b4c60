"""The endpoint: POST /predict, GET /healthz, GET /metrics."""

import asyncio
import time
from concurrent.futures import Future

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeft.runtime.predictor import Prediction, Predictor
from edgeft.serve import bodies, refusals
from edgeft.serve.deadlines import Deadlines
from edgeft.serve.desk import Desk
from edgeft.serve.metrics import Metrics
from edgeft.serve.options import Options
from edgeft.serve.refusals import Refusal


class Service:
    """A bundle that answers; `app` is the ASGI application, and `close` ends its workers.

    Args:
        predictor: the bundle.
        options: the limits.
    """

    def __init__(self, predictor: Predictor, options: Options) -> None:
        self._predictor, self._options = predictor, options
        self._most_bytes = options.most_bytes(texts=predictor.takes_texts)
        self._metrics = Metrics(predictor.manifest)
        self._desk = Desk(predictor, options, self._metrics.ran)
        self._metrics.watch(lambda: self._desk.waiting, lambda: self._desk.places.taken)
        self._deadlines = Deadlines(options.timeout_ms / 1000)
        self._stopping = False
        self.identity = {"bundle": predictor.manifest.name, "content_digest": predictor.manifest.content_digest}
        """What every answer names."""
        self.app = Starlette(
            routes=[
                Route("/predict", self._predict, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/metrics", self._show_metrics),
            ],
            exception_handlers={
                HTTPException: refusals.on_http_exception,
                Exception: refusals.on_any_exception,
            },
        )

    def stop(self, grace_s: float) -> None:
        """Take nothing in any more; what is not answered after `grace_s` is refused."""
        self._stopping = True
        self._deadlines.cut(grace_s)

    def close(self) -> None:
        """End the workers."""
        self._desk.close()

    async def _healthz(self, request: Request) -> Response:
        del request
        if self._stopping:
            return refusals.stopping().response()
        return JSONResponse({"status": "ok", **self.identity})

    async def _show_metrics(self, request: Request) -> Response:
        del request
        return Response(self._metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _predict(self, request: Request) -> Response:
        began, status = time.perf_counter(), 500
        try:
            found = await self._decided(request)
            response: Response = JSONResponse(
                {**self.identity, "predictions": [one.to_json(self._predictor.classes) for one in found]}
            )
            status = response.status_code
        except Refusal as refusal:
            response, status = refusal.response(), refusal.status
        finally:
            self._metrics.answered(status, time.perf_counter() - began)
        return response

    async def _decided(self, request: Request) -> list[Prediction]:
        """Return a decision of each image or text.

        Raises:
            Refusal: there is none.
        """
        if self._stopping:
            raise refusals.stopping()
        reader = bodies.reader(request, texts=self._predictor.takes_texts)
        answers: list[Future[Prediction]] = []
        try:
            async with self._deadlines.limit():
                answers = await self._taken_in(request, reader)
                return await asyncio.gather(*map(asyncio.wrap_future, answers))
        except TimeoutError:
            if self._stopping:
                raise refusals.stopping() from None
            late = refusals.answer_late if answers else refusals.body_late
            raise late(self._options.timeout_ms) from None

    async def _taken_in(self, request: Request, reader: bodies.Reader) -> list[Future[Prediction]]:
        """Read a request on a place that it holds, and put what is in it in line."""
        places, held = self._desk.places, 1
        if not places.take(held):
            raise refusals.full(places.total)
        try:
            sources = reader(await bodies.read(request, self._most_bytes))
            if len(sources) > places.total:
                raise Refusal(
                    413, f"{len(sources)} texts, at most {places.total} are taken at once", "send them in parts"
                )
            if not places.take(len(sources) - held):
                raise refusals.full(places.total)
            held = 0
            kind = "text" if self._predictor.takes_texts else "image"
            return [self._desk.submit(source, f"{kind} {index}") for index, source in enumerate(sources)]
        finally:
            places.give_back(held)
