"""A line of log for each request: whose it was and of which trace, as the callers' headers say.

Callers are workloads of ours, which say `traceparent` and the tenant: by `x-soma-tenant`, or by `soma.tenant` in the
`baggage` of a trace. Of whoever is not admitted nothing is believed.
Source: https://www.w3.org/TR/trace-context/#traceparent-header, https://www.w3.org/TR/baggage/
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

NO_TENANT = "platform"
"""Of requests in which no tenant is concerned. No tenant can have this name."""
LOST_TENANT = "unknown"
"""Of requests of a trace whose tenant got lost on the way: a defect, and to be found."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_QUIET = ("/healthz", "/livez", "/readyz", "/metrics")
_REFUSED = (401, 403)

Message = MutableMapping[str, Any]
Application = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
Log = Callable[..., None]


def logged(application: Application, log: Log) -> Application:
    """The application with a line by `log(level, message, **fields)` for each request, probes and metrics left out."""

    async def observed(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            return await application(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await application(scope, receive, noting)
        finally:
            took = round((time.perf_counter() - started) * 1000, 1)
            known = origin_of({}) if status in _REFUSED else origin_of(_headers(scope))
            level = "error" if status >= 500 else "info"
            log(level, "request", method=scope["method"], path=scope["path"], status=status, ms=took, **known)

    return observed


def origin_of(headers: MutableMapping[str, str]) -> dict[str, str]:
    """`tenant`, and `traceId` and `spanId` within a trace. What is not of the right form is taken for absent."""
    trace = _TRACE.fullmatch(headers.get("traceparent", ""))
    tenant = headers.get("x-soma-tenant") or _baggage(headers.get("baggage", "")).get("soma.tenant", "")
    if not _TENANT.fullmatch(tenant) or tenant in (NO_TENANT, LOST_TENANT):
        tenant = NO_TENANT if trace is None else LOST_TENANT
    return {"tenant": tenant} if trace is None else {"tenant": tenant, "traceId": trace[1], "spanId": trace[2]}


def _baggage(header: str) -> dict[str, str]:
    members = (member.partition(";")[0].partition("=") for member in header.split(","))
    return {name.strip(): unquote(value.strip()) for name, _, value in members}


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
