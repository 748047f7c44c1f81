"""What turns a job into an answer: a loaded model here, or one behind a channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from somagent_slm.answer import Answer
from somagent_slm.engine import Engine
from somagent_slm.errors import ApiError


class Kind(IntEnum):
    """What a piece is. CHUNK is sent on as it is; DONE and FAILED are the last of an answer; LOST: no answer will come."""

    CHUNK = 1
    DONE = 2
    FAILED = 3
    LOST = 4


@dataclass(frozen=True)
class Piece:
    """Part of an answer; `data` is JSON."""

    kind: Kind
    data: bytes = b""


class Work(Protocol):
    """One answer that is being made. `take` gives what has come since, `cancel` stops it at its next token."""

    async def take(self) -> list[Piece]: ...

    def cancel(self) -> None: ...


class Backend(Protocol):
    """One replica of one version of a model."""

    model: str
    version: str
    replica: str
    slots: int

    def start(self, job: bytes) -> Work: ...

    async def ask(self, question: str) -> dict[str, float]: ...

    def tell_demand(self, demand: float) -> None: ...


def job_of(model: str, mode: str, schema: dict[str, Any] | None, *, stream: bool, body: dict[str, Any]) -> bytes:
    """What a replica is told to do."""
    return json.dumps({"model": model, "mode": mode, "schema": schema, "stream": stream, "body": body}).encode()


async def perform(engine: Engine, job: bytes) -> AsyncIterator[list[Piece]]:
    """Does the job; never raises: what fails is a piece as well."""
    try:
        wanted = json.loads(job)
        answer = Answer(wanted["model"], wanted["mode"], wanted["schema"], stream=wanted["stream"])
        started, first = time.monotonic(), 0.0
        async with contextlib.aclosing(engine.generate(wanted["body"])) as batches:
            async for batch in batches:
                first = first or time.monotonic() - started
                told = [Piece(Kind.CHUNK, text.encode()) for chunk in batch for text in answer.feed(chunk)]
                if told:
                    yield told
        yield [Piece(Kind.DONE, json.dumps({**answer.finish(), "first_seconds": first}, ensure_ascii=False).encode())]
    except ApiError as error:
        yield [failed(error)]
    except Exception as error:  # noqa: BLE001 - the caller must not wait for ever
        yield [failed(ApiError(500, f"the model failed: {error}", kind="server_error", code="model_failed"))]


def failed(error: ApiError) -> Piece:
    """The error as a piece."""
    return Piece(Kind.FAILED, json.dumps({"status": error.status, "body": error.body}).encode())


async def answer_question(engine: Engine, question: str) -> dict[str, float]:
    """`work`: llama.cpp's own figures; `health`: 1 when a token came out of the model in the last five seconds."""
    if question == "work":
        return await engine.work()
    return {"healthy": float(await engine.answers(5.0))}


class LocalBackend:
    """A model in this process, for development and tests without Ray."""

    def __init__(self, model: str, version: str, engine: Engine) -> None:
        self.model, self.version, self.replica, self.slots = model, version, "local", engine.slots
        self._engine = engine

    def start(self, job: bytes) -> Work:
        return _LocalWork(self._engine, job)

    async def ask(self, question: str) -> dict[str, float]:
        return await answer_question(self._engine, question)

    def tell_demand(self, demand: float) -> None:
        """One process does not grow."""


class _LocalWork:
    def __init__(self, engine: Engine, job: bytes) -> None:
        self._pieces: asyncio.Queue[list[Piece]] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(engine, job))

    async def take(self) -> list[Piece]:
        return await self._pieces.get()

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self, engine: Engine, job: bytes) -> None:
        try:
            async with contextlib.aclosing(perform(engine, job)) as pieces:
                async for told in pieces:
                    self._pieces.put_nowait(told)
        finally:
            self._pieces.put_nowait([Piece(Kind.LOST)])
