"""What a client sends: decompressed as it comes, as text where it is a statement, never whole where it is rows."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from clickhouse_front.errors import ClickHouseError

Receive = Callable[[], Awaitable[dict[str, Any]]]

#: Longest statement, in bytes.
MAX_STATEMENT = 1 << 20
# A piece of inflated rows: what may wait in memory.
_PIECE = 1 << 20


class Disconnected(Exception):
    """The client has gone."""


class Body:
    """The body of one request, and the news that its client has gone."""

    def __init__(self, receive: Receive, encoding: str) -> None:
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise ClickHouseError(89, f"Unknown compression method {encoding[:40]}; send gzip, or nothing compressed.")
        self._receive = receive
        self._inflate = zlib.decompressobj(31) if "gzip" in encoding else None
        self._more = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, piece by piece. Raises Disconnected, and ClickHouseError where it is not gzip."""
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            self._more = message.get("more_body", False)
            for piece in self._inflated(message.get("body", b"")):
                yield piece
        if self._inflate is not None and not self._inflate.eof:
            raise ClickHouseError(271, "Cannot decompress: the gzip data ends too early.")

    async def until_disconnect(self) -> None:
        """Returns when the client has gone. Only for a body that was read to its end."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _inflated(self, data: bytes) -> list[bytes]:
        if self._inflate is None:
            return [data] if data else []
        pieces = []
        try:
            while data:
                piece = self._inflate.decompress(data, _PIECE)
                if piece:
                    pieces.append(piece)
                data = self._inflate.unconsumed_tail
        except zlib.error as error:
            raise ClickHouseError(271, f"Cannot decompress: {error}.") from None
        return pieces


class Head:
    """The beginning of what a client says: its `query` parameter, then the body, as far as it was needed."""

    def __init__(self, body: Body, parameter: str) -> None:
        self._pieces = body.pieces()
        self._held = f"{parameter}\n".encode() if parameter else b""

    async def fill(self, least: int) -> bytes:
        """At least this many bytes, or all there are."""
        while len(self._held) < least:
            piece = await anext(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        return self._held

    async def statement(self) -> str:
        """All of it. Raises ClickHouseError where it is longer than a statement may be."""
        if len(await self.fill(MAX_STATEMENT + 1)) > MAX_STATEMENT:
            raise ClickHouseError(161, f"Query is too large: a statement may have {MAX_STATEMENT} bytes.")
        return self._held.decode(errors="replace")

    async def rows(self, begin: int) -> AsyncIterator[bytes]:
        """What follows the first `begin` bytes."""
        held, self._held = self._held[begin:], b""
        if held:
            yield held
        async for piece in self._pieces:
            yield piece


async def gathered(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least this size; only the last one is smaller."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def read_multipart(content_type: str, data: bytes) -> dict[str, str]:
    """Fields of a multipart form: `query` and `param_*`. Raises ClickHouseError."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + data)
    fields: dict[str, str] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(name, str) or not (name == "query" or name.startswith("param_")):
            raise ClickHouseError(36, "A multipart request may have the fields query and param_<name>.")
        payload = part.get_payload(decode=True)
        fields[name] = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
    if "query" not in fields:
        raise ClickHouseError(62, "Syntax error: the multipart request has no field query.")
    return fields


async def first_of(work: asyncio.Future[Any], gone: asyncio.Future[Any]) -> bool:
    """True when the work ended, False when the client went first."""
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    return work.done()
