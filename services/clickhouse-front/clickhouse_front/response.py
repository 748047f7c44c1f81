"""An answer: at once or piece by piece, compressed on demand, with ClickHouse's way to report an error midway."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from clickhouse_front.errors import ClickHouseError

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Response:
    """The answer to one request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._deflate: Any = None
        self._tag = ""
        self.started = False

    async def start(self, status: int, headers: dict[str, str], *, gzip: bool = False) -> None:
        self.started = True
        self._tag = headers.get("x-clickhouse-exception-tag", "")
        if gzip:
            # Level 1: a loopback or a data centre is faster than better compression.
            self._deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
            headers = {**headers, "content-encoding": "gzip"}
        pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send(self, data: bytes) -> None:
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush()
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, status: int, data: bytes, headers: dict[str, str], *, gzip: bool = False) -> None:
        if not gzip:
            headers = {**headers, "content-length": str(len(data))}
        await self.start(status, headers, gzip=gzip)
        await self.end(data)

    async def error(self, error: ClickHouseError, version: str, query_id: str) -> None:
        """Reports an error: by status and headers, or, where rows were sent already, at the end of the body."""
        text = error.text(version).encode()
        if self.started:
            tag = self._tag.encode()
            marker = b"\r\n__exception__\r\n"
            await self.end(marker + tag + b"\r\n" + text + str(len(text)).encode() + b" " + tag + marker)
            return
        headers = {
            "content-type": "text/plain; charset=UTF-8",
            "x-clickhouse-exception-code": str(error.code),
            "x-clickhouse-query-id": query_id,
        }
        if error.status == 401:
            headers["www-authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        await self.whole(error.status, text, headers)
