"""The way between the router and its replicas: frames on one TLS connection for each replica, without a proxy between.

A replica dials the router, so nobody has to be found. It trusts the router for holding the key of the very certificate
that both have mounted; the router trusts it for knowing the cluster's Ray token. A frame is a header (length, kind,
number of the answer) and JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from somagent_slm.backend import Kind, Piece, answer_question, perform
from somagent_slm.engine import Engine
from somagent_slm.process import log

HELLO, DRAINING, JOB, CANCEL, DEMAND, ASK, TOLD = 10, 11, 12, 13, 14, 15, 16
_HEADER = struct.Struct(">IBI")
_LARGEST = 16 * 1024 * 1024
_LARGEST_HELLO = 4096
_HELLO_SECONDS = 5.0
_DIAL_SECONDS = 0.2
_ASK_SECONDS = 10.0


def channel_key() -> str:
    """What proves membership in the cluster: made of the Ray token, so it is not the token that is shown."""
    token = os.environ.get("RAY_AUTH_TOKEN") or Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
    return hmac.new(token.encode(), b"somagent slm channel", hashlib.sha256).hexdigest()


class _Frames(asyncio.Protocol):
    """Cuts the stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._limit = _LARGEST

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        position = 0
        while len(self._buffer) - position >= _HEADER.size:
            length, kind, number = _HEADER.unpack_from(self._buffer, position)
            if length > self._limit:
                self.close()
                return
            end = position + _HEADER.size + length
            if len(self._buffer) < end:
                break
            self.on_frame(kind, number, bytes(self._buffer[position + _HEADER.size : end]))
            position = end
        del self._buffer[:position]
        self.after_frames()

    def send(self, kind: int, number: int = 0, data: bytes = b"") -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_HEADER.pack(len(data), kind, number) + data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        raise NotImplementedError

    def after_frames(self) -> None:
        """Called when all frames that have come are cut."""


class RemoteWork:
    """One answer that a replica makes."""

    def __init__(self, link: RemoteBackend, number: int) -> None:
        self._link = link
        self._number = number
        self._pieces: list[Piece] = []
        self._arrived: asyncio.Future[None] | None = None

    async def take(self) -> list[Piece]:
        if not self._pieces:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        pieces, self._pieces = self._pieces, []
        return pieces

    def cancel(self) -> None:
        self._link.forget(self._number)
        self.put(Piece(Kind.LOST))

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class RemoteBackend(_Frames):
    """The router's end of a channel."""

    def __init__(self, key: str, joined: Callable[[RemoteBackend], None], left: Callable[[RemoteBackend], None]) -> None:
        super().__init__()
        self._key, self._joined, self._left = key, joined, left
        self._limit = _LARGEST_HELLO
        self._known = False
        self._number = 0
        self._works: dict[int, RemoteWork] = {}
        self._questions: dict[int, asyncio.Future[dict[str, float]]] = {}
        self.model = self.version = self.replica = ""
        self.slots = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(_HELLO_SECONDS, lambda: None if self._known else self.close())

    def connection_lost(self, _error: Exception | None) -> None:
        if self._known:
            self._left(self)
        for work in list(self._works.values()):
            work.put(Piece(Kind.LOST))
        self._works.clear()
        for question in self._questions.values():
            if not question.done():
                question.set_exception(ConnectionError(f"the replica {self.replica} is gone"))

    def start(self, job: bytes) -> RemoteWork:
        self._number += 1
        work = self._works[self._number] = RemoteWork(self, self._number)
        if self._transport is None or self._transport.is_closing():
            work.put(Piece(Kind.LOST))
        self.send(JOB, self._number, job)
        return work

    def forget(self, number: int) -> None:
        """Stops an answer that nobody wants any more."""
        if self._works.pop(number, None) is not None:
            self.send(CANCEL, number)

    async def ask(self, question: str) -> dict[str, float]:
        """Raises ConnectionError or TimeoutError when no answer comes."""
        self._number += 1
        number = self._number
        self._questions[number] = asyncio.get_running_loop().create_future()
        self.send(ASK, number, question.encode())
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                return await self._questions[number]
        finally:
            del self._questions[number]

    def tell_demand(self, demand: float) -> None:
        self.send(DEMAND, 0, json.dumps(demand).encode())

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        if not self._known:
            self._greet(kind, data)
        elif kind == DRAINING:
            self._left(self)
        elif kind == TOLD:
            question = self._questions.get(number)
            if question is not None and not question.done():
                question.set_result(json.loads(data))
        elif (work := self._works.get(number)) is not None:
            if kind != Kind.CHUNK:
                del self._works[number]
            work.put(Piece(Kind(kind), data))

    def _greet(self, kind: int, data: bytes) -> None:
        try:
            hello = json.loads(data) if kind == HELLO else {}
            genuine = hmac.compare_digest(str(hello["key"]), self._key)
            self.model, self.version = str(hello["model"]), str(hello["version"])
            self.replica, self.slots = str(hello["replica"]), int(hello["slots"])
        except (ValueError, KeyError, TypeError):
            genuine = False
        if not genuine:
            log("warning", "somebody without the cluster's token tried to serve a model")
            self.close()
            return
        self._known, self._limit = True, _LARGEST
        self._joined(self)


class ReplicaEnd(_Frames):
    """The replica's end of a channel."""

    def __init__(self, engine: Engine, hello: dict[str, Any]) -> None:
        super().__init__()
        self._engine, self._hello = engine, hello
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.lost = asyncio.get_running_loop().create_future()
        self.demand = 0.0

    @property
    def busy(self) -> int:
        return len(self._tasks)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(HELLO, 0, json.dumps(self._hello).encode())

    def connection_lost(self, _error: Exception | None) -> None:
        for task in self._tasks.values():
            task.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def on_frame(self, kind: int, number: int, data: bytes) -> None:
        if kind == JOB:
            task = self._tasks[number] = asyncio.create_task(self._perform(number, data))
            task.add_done_callback(lambda _: self._tasks.pop(number, None))
        elif kind == CANCEL and number in self._tasks:
            self._tasks[number].cancel()
        elif kind == DEMAND:
            self.demand = float(json.loads(data))
        elif kind == ASK:
            asyncio.create_task(self._tell(number, data.decode())).add_done_callback(lambda task: task.exception())

    async def _perform(self, number: int, job: bytes) -> None:
        async with contextlib.aclosing(perform(self._engine, job)) as pieces:
            async for told in pieces:
                for piece in told:
                    self.send(piece.kind, number, piece.data)

    async def _tell(self, number: int, question: str) -> None:
        try:
            told = await answer_question(self._engine, question)
        except Exception:  # noqa: BLE001 - a model that can't answer is not healthy
            told = {"healthy": 0.0}
        self.send(TOLD, number, json.dumps(told).encode())


async def listen(
    host: str, port: int, tls: Path, joined: Callable[[RemoteBackend], None], left: Callable[[RemoteBackend], None]
) -> asyncio.Server:
    """Opens the router's door for replicas."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    key = channel_key()
    return await asyncio.get_running_loop().create_server(
        lambda: RemoteBackend(key, joined, left), host, port, ssl=context
    )


async def dial(host: str, port: int, tls: Path, engine: Engine, hello: dict[str, Any]) -> ReplicaEnd:
    """Joins the router, trying until it answers; a router with another certificate is refused."""
    described = {**hello, "slots": engine.slots, "key": channel_key()}
    complained = ""
    while True:
        try:
            return await _dial_once(host, port, tls, engine, described)
        except OSError as error:
            if str(error) != complained:
                log("warning", f"the router at {host}:{port} can't be joined yet: {error}")
                complained = str(error)
            await asyncio.sleep(_DIAL_SECONDS)


async def _dial_once(host: str, port: int, tls: Path, engine: Engine, hello: dict[str, Any]) -> ReplicaEnd:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # By its exact certificate, which says more than a name that any certificate of the authority may have.
    context.check_hostname = False
    context.load_verify_locations(tls / ("ca.crt" if (tls / "ca.crt").exists() else "tls.crt"))
    own = ssl.PEM_cert_to_DER_cert(_first_certificate(tls / "tls.crt"))
    _, end = await asyncio.get_running_loop().create_connection(
        lambda: _Pinned(engine, hello, own), host, port, ssl=context
    )
    if end.lost.done():
        raise OSError("its certificate is not ours")
    return end


class _Pinned(ReplicaEnd):
    """Says hello only to the holder of the expected certificate."""

    def __init__(self, engine: Engine, hello: dict[str, Any], certificate: bytes) -> None:
        super().__init__(engine, hello)
        self._certificate = certificate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        session = transport.get_extra_info("ssl_object")
        if session is None or session.getpeercert(binary_form=True) != self._certificate:
            transport.abort()  # type: ignore[attr-defined]
            self.lost.set_result(None)
            return
        super().connection_made(transport)


def _first_certificate(path: Path) -> str:
    text = path.read_text()
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)] + "\n"
