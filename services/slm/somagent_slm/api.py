"""The HTTP face: an ASGI application with the routes of the OpenAI API that we serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from somagent_slm.auth import admission
from somagent_slm.backend import Kind, Piece, job_of
from somagent_slm.call import Call, CallerLeft
from somagent_slm.errors import ApiError
from somagent_slm.hub import Hub
from somagent_slm.metrics import Metrics
from somagent_slm.pool import Lane
from somagent_slm.prompt import binding, llama_body
from somagent_slm.requests import ChatRequest, parse_chat_request
from somagent_slm.settings import Settings

HEALTH_DEADLINE = 10.0
LONGEST_DEADLINE_MS = 3_600_000
_LEFT = 499
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers; `application` is what a server runs."""

    def __init__(self, settings: Settings, hub: Hub, metrics: Metrics) -> None:
        self._settings = settings
        self._hub = hub
        self._admission = admission(settings)
        self._metrics = metrics
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
                if not await self._admission.accepts(request.headers.get("authorization")):
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
        lane, deadline, tenant = _lane(request), _deadline(request), _tenant(request)
        chat = parse_chat_request(await self._body(request), self._hub.names(tenant))
        mode, schema = binding(chat)
        job = job_of(chat.model, mode, schema, stream=chat.stream, body=llama_body(chat))
        call = Call(self._hub.serving(chat.model, tenant), lane, job, deadline, self._metrics)
        watcher = asyncio.create_task(_until_left(request.receive, call))
        return await self._begun(_Exchange(chat, lane, call, watcher, self._metrics))

    async def _begun(self, exchange: _Exchange) -> Response:
        """The response, once its first token decides the status: after it the response has begun."""
        try:
            first = await exchange.call.begin()
            if exchange.chat.stream:
                return _EventStream(exchange, first)
            completion = await exchange.whole(first)
        except ApiError as error:
            exchange.close(error.status)
            return _error(error)
        except CallerLeft:
            exchange.close(_LEFT)
            return Response(status_code=_LEFT)
        except BaseException:
            exchange.close(500)
            raise
        exchange.close(200)
        return JSONResponse(completion, headers=_timing_headers(completion["soma"]))

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.body_limit
        body = bytearray()
        async for part in request.stream():
            body.extend(part)
            if len(body) > limit:
                raise ApiError(413, f"the body is larger than {limit} bytes; send less", code="body_too_large")
        return bytes(body)

    async def _models(self, request: Request) -> Response:
        models = [
            {"id": name, "object": "model", "created": self._created, "owned_by": "somagent"}
            for name in self._hub.names(_tenant(request))
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _report(self, _request: Request) -> Response:
        for pool in self._hub.pools():
            for lane in Lane:
                self._metrics.measured("waiting", pool.waiting(lane), pool.model, lane)
            backends = pool.backends()
            self._metrics.measured("replicas", len(backends), pool.model)
            self._metrics.measured("slots", pool.slots(), pool.model)
            works = await asyncio.gather(*(backend.ask("work") for backend in backends), return_exceptions=True)
            for name, figure in (("slots_busy", "busy"), ("decodes", "decodes")):
                total = sum(work[figure] for work in works if isinstance(work, dict))
                self._metrics.measured(name, total, pool.model)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _health(self, _request: Request) -> Response:
        """Healthy means that a token came out of a model at most five seconds ago."""
        try:
            # One check at a time: probes from several sides must not multiply into load.
            async with self._health_lock, asyncio.timeout(HEALTH_DEADLINE):
                healthy = await self._hub.healthy()
        except TimeoutError:
            healthy = False
        return JSONResponse({"status": "ok" if healthy else "failing"}, 200 if healthy else 503)


class _Exchange:
    """A request and what is known of its answer."""

    def __init__(self, chat: ChatRequest, lane: Lane, call: Call, watcher: asyncio.Task[None], metrics: Metrics) -> None:
        self.chat, self.call = chat, call
        self._lane, self._watcher, self._metrics = lane, watcher, metrics

    async def whole(self, pieces: list[Piece]) -> dict[str, Any]:
        """The completion with `usage`, `timings` and `soma`."""
        while pieces[-1].kind is not Kind.DONE:
            pieces = await self.call.more()
        told = self.call.finished(pieces[-1])
        return {**told["completion"], "usage": told["usage"], "timings": _timings(told), "soma": told["soma"]}

    def last_chunks(self, done: Piece) -> Iterator[bytes]:
        told = self.call.finished(done)
        yield from (_event(chunk) for chunk in told["rest"])
        finish = told["finish"]
        own = {"timings": _timings(told), "soma": told["soma"]}
        if self.chat.include_usage:
            yield _event(finish)
            yield _event({**finish, "choices": [], "usage": told["usage"], **own})
        else:
            yield _event({**finish, **own})
        yield b"data: [DONE]\n\n"

    def close(self, status: int) -> None:
        self._metrics.answered(status, self.chat.model, self._lane)
        self._watcher.cancel()
        self.call.end()


class _EventStream(Response):
    """Server-sent events as they come; Starlette's own response would take a task group for each."""

    media_type = "text/event-stream"

    def __init__(self, exchange: _Exchange, first: list[Piece]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._exchange, self._first = exchange, first

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        status = _LEFT
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            status = await self._events(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (CallerLeft, OSError):
            pass
        finally:
            self._exchange.close(status)

    async def _events(self, send: Send) -> int:
        pieces, status = self._first, 200
        try:
            while True:
                parts = [b"data: " + piece.data + b"\n\n" for piece in pieces if piece.kind is Kind.CHUNK]
                ended = pieces[-1].kind is Kind.DONE
                if ended:
                    parts.extend(self._exchange.last_chunks(pieces[-1]))
                await send({"type": "http.response.body", "body": b"".join(parts), "more_body": True})
                if ended:
                    return status
                pieces = await self._exchange.call.more()
        except ApiError as error:
            await send({"type": "http.response.body", "body": _event(error.body), "more_body": True})
            return error.status


async def _until_left(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.leave()


def _lane(request: Request) -> Lane:
    given = request.headers.get("x-soma-lane", Lane.INTERACTIVE)
    with contextlib.suppress(ValueError):
        return Lane(given)
    message = f"x-soma-lane: {given[:40]!r} is no lane; send interactive or batch"
    raise ApiError(400, message, code="invalid_value", parameter="x-soma-lane")


def _tenant(request: Request) -> str | None:
    """Whose request it is. Who may call has it from a verified token; without it nobody's own model answers."""
    given = request.headers.get("x-soma-tenant")
    if given is None or _TENANT.fullmatch(given):
        return given
    message = f"x-soma-tenant: {given[:40]!r} is no name of a tenant; send 1 to 63 of a-z, 0-9 and -"
    raise ApiError(400, message, code="invalid_value", parameter="x-soma-tenant")


def _deadline(request: Request) -> float | None:
    """Seconds that the request is willing to wait for a slot; None: as its lane does."""
    given = request.headers.get("x-soma-deadline-ms")
    if given is None:
        return None
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given[:9]) <= LONGEST_DEADLINE_MS or len(given) > 9:
        message = f"x-soma-deadline-ms: {given[:40]!r} is not usable; send a whole number from 1 to {LONGEST_DEADLINE_MS}"
        raise ApiError(400, message, code="invalid_value", parameter="x-soma-deadline-ms")
    return int(given) / 1000


def _timings(told: dict[str, Any]) -> dict[str, float]:
    soma, llama = told["soma"], told["timings"]
    return {
        "queue_ms": soma["queueMs"],
        "first_token_ms": soma["firstTokenMs"],
        "total_ms": soma["totalMs"],
        "prompt_ms": llama["prompt_ms"],
        "predicted_ms": llama["predicted_ms"],
        "predicted_per_second": round(llama["predicted_per_second"], 1),
    }


def _timing_headers(soma: dict[str, Any]) -> dict[str, str]:
    names = {"queueMs": "queue", "firstTokenMs": "first-token", "totalMs": "total"}
    return {f"x-soma-{name}-ms": str(soma[key]) for key, name in names.items()}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _error(error: ApiError) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return JSONResponse(error.body, error.status, headers=headers)


async def _not_found(request: Request, _error_: Exception) -> Response:
    message = f"{request.url.path} does not exist; use /v1/chat/completions, /v1/models, /healthz or /metrics"
    return _error(ApiError(404, message, code="not_found"))


async def _not_allowed(request: Request, _error_: Exception) -> Response:
    return _error(ApiError(405, f"{request.method} is not allowed on {request.url.path}", code="method_not_allowed"))
