"""The way between router and replicas: real TLS on the loopback, the real engine, and those who may not."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from somagent_slm.backend import Kind, Piece, job_of
from somagent_slm.channel import HELLO, RemoteBackend, channel_key, dial, listen
from somagent_slm.engine import Engine
from tests.conftest import Files, free_port

HELLO_OF_TINY = {"model": "soma-tiny", "version": "v1", "replica": "r1"}


@pytest.fixture(autouse=True)
def ray_token(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(files.ray_token))


class Door:
    """An open door and who came and went."""

    def __init__(self) -> None:
        self.port = free_port()
        self.came: list[RemoteBackend] = []
        self.went: list[RemoteBackend] = []

    async def first(self) -> RemoteBackend:
        async with asyncio.timeout(5):
            while not self.came:
                await asyncio.sleep(0.01)
        return self.came[0]


@asynccontextmanager
async def opened(files: Files) -> AsyncIterator[Door]:
    door = Door()
    server = await listen("127.0.0.1", door.port, files.tls, door.came.append, door.went.append)
    try:
        yield door
    finally:
        server.close()


@asynccontextmanager
async def joined(files: Files) -> AsyncIterator[tuple[Door, RemoteBackend, Any]]:
    engine = Engine(files.model, slots=2, threads=1, context=0)
    async with opened(files) as door:
        end = await dial("127.0.0.1", door.port, files.tls, engine, HELLO_OF_TINY)
        try:
            yield door, await door.first(), end
        finally:
            end.close()
            engine.close()


def job(**fields: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": "What is a session?"}], "temperature": 0, "stream": True, **fields}
    return job_of("soma-tiny", "text", None, stream=True, body={**body, "stream_options": {"include_usage": True}})


async def all_of(work: Any) -> list[Piece]:
    pieces: list[Piece] = []
    async with asyncio.timeout(20):
        while not pieces or pieces[-1].kind is Kind.CHUNK:
            pieces += await work.take()
    return pieces


def test_an_answer_comes_through_in_order(files: Files) -> None:
    async def run() -> tuple[RemoteBackend, list[list[Piece]]]:
        async with joined(files) as (_, backend, _end):
            return backend, await asyncio.gather(*(all_of(backend.start(job(max_tokens=n))) for n in (5, 9)))

    backend, answers = asyncio.run(run())
    assert (backend.model, backend.version, backend.replica, backend.slots) == ("soma-tiny", "v1", "r1", 2)
    for pieces, tokens in zip(answers, (5, 9), strict=True):
        deltas = [json.loads(piece.data)["choices"][0]["delta"] for piece in pieces[:-1] if json.loads(piece.data)["choices"]]
        assert "".join(delta.get("content", "") for delta in deltas).startswith("A session is")
        assert json.loads(pieces[-1].data)["usage"]["completion_tokens"] == tokens


def test_what_llama_refuses_is_told(files: Files) -> None:
    async def run() -> list[Piece]:
        async with joined(files) as (_, backend, _end):
            return await all_of(backend.start(job(messages=[{"role": "user", "content": "session " * 3000}])))

    [piece] = asyncio.run(run())
    assert piece.kind is Kind.FAILED
    assert json.loads(piece.data)["body"]["error"]["code"] == "context_length_exceeded"


def test_a_lost_replica_ends_its_answers(files: Files) -> None:
    async def run() -> tuple[list[Piece], bool]:
        async with joined(files) as (door, backend, end):
            work = backend.start(job(max_tokens=900, grammar='root ::= "a"{900}'))
            await work.take()
            end.close()
            return await all_of(work), backend in door.went

    pieces, gone = asyncio.run(run())
    assert pieces[-1].kind is Kind.LOST
    assert gone


def test_a_cancelled_answer_frees_the_slot(files: Files) -> None:
    async def run() -> tuple[float, float]:
        async with joined(files) as (_, backend, _end):
            work = backend.start(job(max_tokens=900, grammar='root ::= "a"{900}'))
            await work.take()
            busy = (await backend.ask("work"))["busy"]
            work.cancel()
            for _ in range(200):
                if (left := (await backend.ask("work"))["busy"]) == 0:
                    break
                await asyncio.sleep(0.01)
            return busy, left

    assert asyncio.run(run()) == (1, 0)


async def knock(files: Files, port: int, kind: int, data: bytes) -> bytes:
    """What the router answers to a stranger: nothing, and the connection's end."""
    context = ssl.create_default_context(cafile=str(files.tls / "tls.crt"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(struct.pack(">IBI", len(data), kind, 0) + data)
    async with asyncio.timeout(8):
        try:
            return await reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("kind", "hello"),
    [
        (HELLO, {**HELLO_OF_TINY, "slots": 1, "key": "0" * 64}),
        (HELLO, {**HELLO_OF_TINY, "slots": 1}),
        (HELLO, []),
        (Kind.CHUNK, {**HELLO_OF_TINY, "slots": 1}),
        (HELLO, {"key": "x" * 5000}),
    ],
)
def test_who_does_not_know_the_clusters_token_serves_nothing(files: Files, kind: int, hello: Any) -> None:
    async def run() -> tuple[bytes, int]:
        async with opened(files) as door:
            return await knock(files, door.port, kind, json.dumps(hello).encode()), len(door.came)

    assert asyncio.run(run()) == (b"", 0)


def test_who_knows_it_is_let_in(files: Files) -> None:
    """The positive control of the test above."""

    async def run() -> int:
        async with opened(files) as door:
            hello = json.dumps({**HELLO_OF_TINY, "slots": 1, "key": channel_key()}).encode()
            with pytest.raises(TimeoutError):
                await knock(files, door.port, HELLO, hello)
            return len(door.came)

    assert asyncio.run(run()) == 1


def test_a_router_with_another_certificate_learns_nothing(files: Files, tmp_path: Path) -> None:
    other = Files(files.model, files.token, files.ray_token, tmp_path)
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        "-keyout tls.key -out tls.crt".split(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    # The same authority's word is not enough: only the very certificate is.
    (files.tls / "both").mkdir(exist_ok=True)
    trusting = files.tls / "both"
    (trusting / "tls.crt").write_text((files.tls / "tls.crt").read_text())
    (trusting / "ca.crt").write_text((tmp_path / "tls.crt").read_text() + (files.tls / "tls.crt").read_text())

    async def run() -> int:
        engine = Engine(files.model, slots=1, threads=1, context=0)
        async with opened(other) as door:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await dial("127.0.0.1", door.port, trusting, engine, HELLO_OF_TINY)
            engine.close()
            return len(door.came)

    assert asyncio.run(run()) == 0
