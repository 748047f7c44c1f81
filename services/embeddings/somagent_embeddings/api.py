"""The HTTP face: an ASGI application with OpenAI's embeddings API."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from somagent_slm.auth import Admission
from somagent_slm.errors import ApiError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from somagent_embeddings.batcher import Batcher
from somagent_embeddings.encoder import Encoder, Tokens
from somagent_embeddings.requests import EmbeddingRequest, parse_request
from somagent_embeddings.settings import Settings

HEALTH_SECONDS = 5.0
SHORT_CHARACTERS = 4000
"""Up to which the tokenizer is done sooner, within a millisecond, than a thread has woken up."""
HEALTH_TEXT = "is anybody there?"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers; `application` is what a server runs."""

    def __init__(self, settings: Settings, encoder: Encoder, batcher: Batcher, admission: Admission) -> None:
        self._settings = settings
        self._encoder = encoder
        self._batcher = batcher
        self._admission = admission
        self._metrics = _Metrics(batcher)
        self._created = int(time.time())
        self._health_lock = asyncio.Lock()
        self.application = Starlette(
            routes=[
                Route("/v1/embeddings", self._guard(self._embeddings), methods=["POST"]),
                Route("/v1/models", self._guard(self._models), methods=["GET"]),
                Route("/metrics", self._guard(self._report), methods=["GET"]),
                Route("/healthz", self._health, methods=["GET"]),
            ],
            exception_handlers={404: _not_found, 405: _not_allowed},
        )

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                if not await self._admission.accepts(request.headers.get("authorization")):
                    raise ApiError(
                        401,
                        "the bearer token is absent or wrong; send `Authorization: Bearer <token>`",
                        kind="authentication_error",
                        code="invalid_api_key",
                    )
                response = await handler(request)
            except ApiError as error:
                response = self._refusal(error)
            self._metrics.requests.labels(response.status_code).inc()
            return response

        return guarded

    async def _embeddings(self, request: Request) -> Response:
        started = time.perf_counter()
        body = await self._body(request)
        wanted = parse_request(body, self._settings.model_name, self._encoder.dimensions)
        if sum(map(len, wanted.texts)) <= SHORT_CHARACTERS:
            tokens = self._encoder.tokenize(wanted.texts)
        else:
            tokens = await asyncio.to_thread(self._encoder.tokenize, wanted.texts)
        vectors = await self._while_connected(request, tokens)
        self._metrics.embedded(tokens, time.perf_counter() - started)
        return _answer(self._settings.model_name, wanted, tokens, vectors)

    async def _while_connected(self, request: Request, tokens: list[Tokens]) -> np.ndarray:
        """Embeds, but no longer than somebody waits for it."""
        work = asyncio.create_task(self._batcher.embed(tokens))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ApiError(499, "the caller has left", code="client_closed_request")
            return work.result()
        finally:
            work.cancel()
            gone.cancel()

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.body_limit
        body = bytearray()
        try:
            async for part in request.stream():
                body.extend(part)
                if len(body) > limit:
                    raise ApiError(413, f"the body is larger than {limit} bytes; send less", code="body_too_large")
        except ClientDisconnect as error:
            raise ApiError(499, "the caller has left", code="client_closed_request") from error
        return bytes(body)

    async def _models(self, _: Request) -> Response:
        model = {
            "id": self._settings.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "somagent",
            "dimensions": self._encoder.dimensions,
            "max_input_tokens": self._encoder.longest,
        }
        return _json(200, {"object": "list", "data": [model]})

    async def _report(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _health(self, _: Request) -> Response:
        """200 only when an embedding came out of the model in the last seconds, making one if need be."""
        async with self._health_lock:
            if time.monotonic() - self._batcher.last_run_at > HEALTH_SECONDS:
                try:
                    vector = (await self._batcher.embed(self._encoder.tokenize([HEALTH_TEXT])))[0]
                except ApiError as error:
                    return PlainTextResponse(str(error), 503)
                if not np.isfinite(vector).all() or not vector.any():
                    return PlainTextResponse("the model gives no usable numbers", 503)
        return PlainTextResponse("ok")

    def _refusal(self, error: ApiError) -> Response:
        headers = {"retry-after": str(self._batcher.retry_after)} if error.status in (429, 503) else None
        return _json(error.status, error.body, headers)


class _Metrics:
    """A registry of its own: nothing is shared with other servers of the process."""

    def __init__(self, batcher: Batcher) -> None:
        self._registry = CollectorRegistry()
        self._batcher = batcher
        ProcessCollector(registry=self._registry)
        self.requests = Counter("embeddings_requests", "Answers by status", ("status",), registry=self._registry)
        self._texts = Counter("embeddings_texts", "Texts embedded", registry=self._registry)
        self._tokens = Counter("embeddings_tokens", "Tokens embedded", registry=self._registry)
        self._truncated = Counter("embeddings_truncated_texts", "Texts cut off", registry=self._registry)
        self._seconds = Histogram(
            "embeddings_request_seconds", "Time to the answer", buckets=_SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "embeddings_batch_texts", "Texts per run", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self._registry
        )
        waiting = Gauge("embeddings_waiting_texts", "Texts in the queue", registry=self._registry)
        waiting.set_function(lambda: batcher.waiting)

    def embedded(self, tokens: list[Tokens], seconds: float) -> None:
        self._texts.inc(len(tokens))
        self._tokens.inc(sum(len(each.ids) for each in tokens))
        self._truncated.inc(sum(each.truncated for each in tokens))
        self._seconds.observe(seconds)
        while self._batcher.batch_sizes:
            self._batches.observe(self._batcher.batch_sizes.pop())

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _answer(model: str, wanted: EmbeddingRequest, tokens: list[Tokens], vectors: np.ndarray) -> Response:
    count = sum(len(each.ids) for each in tokens)
    body: dict[str, Any] = {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(row, base64_wanted=wanted.base64)}
            for index, row in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    # Not in OpenAI's API, which refuses longer texts: here the beginning counts, and the caller is told.
    truncated = [index for index, each in enumerate(tokens) if each.truncated]
    body["soma"] = {"truncated": truncated}
    return _json(200, body, {"x-soma-truncated": str(len(truncated))})


def _encoded(row: np.ndarray, *, base64_wanted: bool) -> Any:
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if base64_wanted else row


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


async def _not_found(request: Request, _: Exception) -> Response:
    error = ApiError(404, f"there is no {request.url.path}; see /v1/embeddings and /v1/models", code="not_found")
    return _json(404, error.body)


async def _not_allowed(request: Request, _: Exception) -> Response:
    error = ApiError(405, f"{request.method} is not possible at {request.url.path}", code="method_not_allowed")
    return _json(405, error.body)
