"""Whose a request was, as its line of log says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from somagent_slm.request_log import logged, origin_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
IN_TRACE = {"traceId": TRACE, "spanId": SPAN}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {"tenant": "platform"}),
        ({"x-soma-tenant": "acme"}, {"tenant": "acme"}),
        ({"x-soma-tenant": "acme", "traceparent": PARENT}, {"tenant": "acme", **IN_TRACE}),
        ({"traceparent": PARENT, "baggage": "a=b;c=d, soma.tenant = globex ;p=1"}, {"tenant": "globex", **IN_TRACE}),
        # A trace of nobody is a defect that is to be seen; nobody may call himself so.
        ({"traceparent": PARENT}, {"tenant": "unknown", **IN_TRACE}),
        ({"x-soma-tenant": "unknown"}, {"tenant": "platform"}),
        # What is not of the right form is no tenant, and no second line either.
        ({"x-soma-tenant": 'acme"}\n{"tenant":"globex'}, {"tenant": "platform"}),
        ({"x-soma-tenant": "ACME"}, {"tenant": "platform"}),
        ({"x-soma-tenant": "a" * 64}, {"tenant": "platform"}),
        ({"traceparent": f"ff-{TRACE}-{SPAN}-01"}, {"tenant": "platform"}),
        ({"traceparent": f"00-{'0' * 32}-{SPAN}-01"}, {"tenant": "platform"}),
        ({"traceparent": f"00-{TRACE}-{SPAN}"}, {"tenant": "platform"}),
    ],
)
def test_tenant_and_trace_are_those_of_the_headers(headers: dict[str, str], expected: dict[str, str]) -> None:
    assert origin_of(headers) == expected


def lines_of(path: str, status: int | None, headers: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if status is None:
            raise RuntimeError("no answer")
        await send({"type": "http.response.start", "status": status})

    async def ignored(*_: Any) -> None: ...

    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": sent}
    served = logged(application, lambda level, message, **fields: lines.append((level, {"message": message, **fields})))
    try:
        asyncio.run(served(scope, ignored, ignored))
    except RuntimeError:
        assert status is None
    return lines


def test_who_is_not_admitted_names_no_tenant() -> None:
    headers = {"x-soma-tenant": "acme", "traceparent": PARENT}
    assert lines_of("/v1/embeddings", 200, headers)[0][1]["tenant"] == "acme"
    for status in (401, 403):
        ((_, line),) = lines_of("/v1/embeddings", status, headers)
        assert line["tenant"] == "platform" and "traceId" not in line


def test_a_request_that_breaks_is_an_error_and_probes_are_silent() -> None:
    ((level, line),) = lines_of("/v1/embeddings", None, {"x-soma-tenant": "acme"})
    assert (level, line["status"], line["tenant"]) == ("error", 500, "acme")
    assert lines_of("/healthz", 200, {}) == []
