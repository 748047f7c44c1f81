"""The way between router and replicas: real TLS and a real socket of the node, the real engine, and those who may not."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from somagent_slm import channel
from somagent_slm.backend import Kind, Piece, job_of
from somagent_slm.channel import HELLO, RemoteBackend, channel_key, dial, listen, listen_nearby
from somagent_slm.engine import Engine, _Inbox
from somagent_slm.settings import SettingsError
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
async def opened_nearby(door: Door) -> AsyncIterator[Path]:
    """A door of this node alone: nobody listens at its port."""
    server = await listen_nearby("127.0.0.1", door.port, door.came.append, door.went.append)
    try:
        yield channel._nearby("127.0.0.1", door.port)
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


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of its own, as a pod has."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_replica_of_the_same_node_comes_by_its_socket(files: Files, node: Path) -> None:
    async def run() -> tuple[list[Piece], str, int]:
        engine = Engine(files.model, slots=1, threads=1, context=0)
        door = Door()
        async with opened_nearby(door) as place:
            end = await dial("127.0.0.1", door.port, files.tls, engine, HELLO_OF_TINY)
            try:
                backend = await door.first()
                return await all_of(backend.start(job(max_tokens=5))), backend.replica, place.parent.stat().st_mode & 0o777
            finally:
                end.close()
                engine.close()

    pieces, replica, mode = asyncio.run(run())
    assert (json.loads(pieces[-1].data)["usage"]["completion_tokens"], replica, mode) == (5, "r1", 0o700)


def test_a_socket_that_nobody_answers_any_more_is_passed_by(files: Files, node: Path) -> None:
    async def run() -> int:
        engine = Engine(files.model, slots=1, threads=1, context=0)
        async with opened(files) as door:
            async with opened_nearby(door) as place:
                pass
            assert place.exists()
            end = await dial("127.0.0.1", door.port, files.tls, engine, HELLO_OF_TINY)
            await door.first()
            end.close()
            engine.close()
            return len(door.came)

    assert asyncio.run(run()) == 1


def test_the_socket_is_refused_in_a_folder_that_is_open_to_others(files: Files, node: Path) -> None:
    (node / f"somagent-slm-{os.getuid()}").mkdir(mode=0o777)
    (node / f"somagent-slm-{os.getuid()}").chmod(0o777)

    async def run() -> None:
        async with opened_nearby(Door()):
            pass

    with pytest.raises(SettingsError, match="open to others"):
        asyncio.run(run())


@pytest.mark.parametrize(("key", "let_in"), [(None, 0), ("0" * 64, 0), ("own", 1)])
def test_the_socket_asks_for_the_clusters_token_too(node: Path, key: str | None, let_in: int) -> None:
    async def run() -> int:
        door = Door()
        async with opened_nearby(door) as place:
            reader, writer = await asyncio.open_unix_connection(place)
            hello = {**HELLO_OF_TINY, "slots": 1, **({} if key is None else {"key": channel_key() if key == "own" else key})}
            data = json.dumps(hello).encode()
            writer.write(struct.pack(">IBI", len(data), HELLO, 0) + data)
            try:
                async with asyncio.timeout(0.5):
                    await reader.read()
            except (TimeoutError, ConnectionError):
                pass
            writer.close()
            return len(door.came)

    assert asyncio.run(run()) == let_in


def test_tokens_that_come_fast_travel_together_and_the_last_one_waits_for_nothing() -> None:
    async def run() -> tuple[list[Any], float, list[Any], float]:
        inbox = _Inbox(asyncio.get_running_loop())
        inbox.put("a")
        assert await inbox.take() == ["a"]
        inbox.rest(0.3)
        started = time.monotonic()
        inbox.put("b")
        asyncio.get_running_loop().call_later(0.05, inbox.put, "c")
        together, waited = await inbox.take(), time.monotonic() - started
        inbox.rest(30)
        started = time.monotonic()
        inbox.put("d")
        asyncio.get_running_loop().call_later(0.05, inbox.put, None)
        return together, waited, await inbox.take(), time.monotonic() - started

    together, waited, end, ended = asyncio.run(run())
    assert (together, end) == (["b", "c"], ["d", None])
    assert 0.25 < waited < 5
    assert ended < 5


def test_a_stream_takes_fewer_wake_ups_than_tokens_and_loses_none(files: Files) -> None:
    async def run() -> list[list[Any]]:
        engine = Engine(files.model, slots=1, threads=1, context=0)
        body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 60}
        grammar = {"grammar": 'root ::= "a"{900}', "stream_options": {"include_usage": True}}
        batches = [batch async for batch in engine.generate({**body, **grammar})]
        engine.close()
        return batches

    batches = asyncio.run(run())
    chunks = [chunk for batch in batches for chunk in batch]
    texts = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert chunks[-1]["usage"]["completion_tokens"] == 60
    assert len([text for text in texts if text]) == 60
    assert len(batches) < 50


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
