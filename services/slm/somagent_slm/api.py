"""The HTTP face: an ASGI application with the routes of the OpenAI API that we serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from somagent_slm.auth import admission
from somagent_slm.engine import Chunk, Engine
from somagent_slm.errors import ApiError
from somagent_slm.metrics import Metrics
from somagent_slm.requests import ChatRequest, parse_chat_request
from somagent_slm.settings import Settings

HEALTH_SECONDS = 5.0
HEALTH_DEADLINE = 10.0

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers; `application` is what a server runs."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._admission = admission(settings)
        self._metrics = Metrics()
        self._created = int(time.time())
        self._health_lock = asyncio.Lock()
        self.application = Starlette(
            routes=[
                Route("/v1/chat/completions", self._guard(self._chat), methods=["POST"]),
                Route("/v1/models", self._guard(self._models), methods=["GET"]),
                Route("/metrics", self._guard(self._report), methods=["GET"]),
                Route("/healthz", self._health, methods=["GET"]),
            ],
            exception_handlers={404: _not_found, 405: _not_allowed},
        )

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                # In a thread: the keys of the cluster may have to be fetched, and streams must not wait for that.
                if not await asyncio.to_thread(self._admission.accepts, request.headers.get("authorization")):
                    raise ApiError(
                        401,
                        "the bearer token is absent or wrong; send `Authorization: Bearer <token>`",
                        kind="authentication_error",
                        code="invalid_api_key",
                    )
                return await handler(request)
            except ApiError as error:
                self._metrics.answered(error.status)
                return _error(error)

        return guarded

    async def _chat(self, request: Request) -> Response:
        chat = parse_chat_request(await self._body(request), self._settings.model_name)
        chunks = self._engine.stream(chat.to_llama())
        # The first chunk decides the status: after it the response has begun.
        first = await _first(chunks)
        if chat.stream:
            return StreamingResponse(
                self._events(chat, first, chunks),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            )
        completion = await self._collect(first, chunks)
        self._metrics.answered(200)
        timings = completion["timings"]
        headers = {f"x-soma-{key[:-3].replace('_', '-')}-ms": str(timings[key]) for key in _HEADER_TIMINGS}
        return JSONResponse(completion, headers=headers)

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.body_limit
        body = bytearray()
        async for part in request.stream():
            body.extend(part)
            if len(body) > limit:
                raise ApiError(413, f"the body is larger than {limit} bytes; send less", code="body_too_large")
        return bytes(body)

    async def _events(self, chat: ChatRequest, first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[str]:
        finish: Chunk | None = None
        async with contextlib.aclosing(rest):
            try:
                async for chunk in _chain(first, rest):
                    chunk["model"] = self._settings.model_name
                    if "usage" not in chunk and _finish_reason(chunk):
                        finish = chunk  # held back: it carries the timings when no usage was asked for
                    elif "usage" not in chunk:
                        yield _event(chunk)
                    else:
                        self._metrics.generated(chunk["usage"], chunk["timings"])
                        for last in _last_chunks(finish, chunk, chat.include_usage):
                            yield _event(last)
            except ApiError as error:
                self._metrics.answered(error.status)
                yield _event(error.body)
                return
        self._metrics.answered(200)
        yield "data: [DONE]\n\n"

    async def _collect(self, first: Chunk, rest: AsyncIterator[Chunk]) -> dict[str, Any]:
        text: list[str] = []
        reason, usage, timings = "stop", {}, {}
        async with contextlib.aclosing(rest):
            async for chunk in _chain(first, rest):
                for choice in chunk["choices"]:
                    text.append(choice["delta"].get("content") or "")
                reason = _finish_reason(chunk) or reason
                usage, timings = chunk.get("usage", usage), chunk.get("timings", timings)
        self._metrics.generated(usage, timings)
        message = {"role": "assistant", "content": "".join(text)}
        return {
            "id": first["id"],
            "object": "chat.completion",
            "created": first["created"],
            "model": self._settings.model_name,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": usage,
            "timings": timings,
        }

    async def _models(self, _request: Request) -> Response:
        model = {
            "id": self._settings.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "somagent",
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def _report(self, _request: Request) -> Response:
        return PlainTextResponse(self._metrics.text(await self._engine.work()), media_type="text/plain; version=0.0.4")

    async def _health(self, _request: Request) -> Response:
        """Healthy means that a token came out of the model at most five seconds ago."""
        try:
            # One check at a time: probes from several sides must not multiply into load.
            async with self._health_lock, asyncio.timeout(HEALTH_DEADLINE):
                healthy = await self._engine.answers(HEALTH_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever stops the model makes it unhealthy
            return JSONResponse({"status": "failing", "detail": str(error) or type(error).__name__}, 503)
        return JSONResponse({"status": "ok" if healthy else "failing"}, 200 if healthy else 503)


_HEADER_TIMINGS = ("queue_ms", "first_token_ms", "total_ms")


async def _first(chunks: AsyncIterator[Chunk]) -> Chunk:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        raise ApiError(500, "the model ended without a token", kind="server_error") from None


async def _chain(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    yield first
    async for chunk in rest:
        yield chunk


def _finish_reason(chunk: Chunk) -> str | None:
    return next((choice["finish_reason"] for choice in chunk["choices"] if choice.get("finish_reason")), None)


def _last_chunks(finish: Chunk | None, usage: Chunk, include_usage: bool) -> list[Chunk]:
    chunks = [] if finish is None else [finish]
    if include_usage:
        return [*chunks, usage]
    for chunk in chunks:
        chunk["timings"] = usage["timings"]
    return chunks


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _error(error: ApiError) -> Response:
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(error.status)
    return JSONResponse(error.body, error.status, headers=headers)


async def _not_found(request: Request, _error_: Exception) -> Response:
    message = f"{request.url.path} does not exist; use /v1/chat/completions, /v1/models, /healthz or /metrics"
    return _error(ApiError(404, message, code="not_found"))


async def _not_allowed(request: Request, _error_: Exception) -> Response:
    return _error(ApiError(405, f"{request.method} is not allowed on {request.url.path}", code="method_not_allowed"))
