"""One chat request on its way: waits for a slot, begins, starts over when nothing was told yet, and is timed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from somagent_slm.backend import Kind, Piece, Work
from somagent_slm.errors import ApiError
from somagent_slm.metrics import Metrics
from somagent_slm.pool import Lane, Lease, Pool

_MOST_STARTS = 3


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class Call:
    """Belongs to one request. `end` must follow, whatever happens."""

    def __init__(self, pool: Pool, lane: Lane, job: bytes, deadline: float | None, metrics: Metrics) -> None:
        self._pool, self._lane, self._job, self._deadline, self._metrics = pool, lane, job, deadline, metrics
        self._arrived = time.monotonic()
        self._began = self._first = 0.0
        self._lease: Lease | None = None
        self._work: Work | None = None
        self._ticket: asyncio.Future[Lease] | None = None
        self._last: Piece | None = None
        self._left = False
        self._replica = ""

    async def begin(self) -> list[Piece]:
        """The first pieces. Raises ApiError when there is no slot in time or the model refuses, CallerLeft."""
        for start in range(1, _MOST_STARTS + 1):
            await self._acquire()
            pieces = await self._take()
            if pieces[0].kind is not Kind.LOST:
                return pieces
            if self._left:
                break
            self._let_go()
            self._metrics.lost(self._pool.model, "repeated" if start < _MOST_STARTS else "told")
        if self._left:
            raise CallerLeft
        raise self._lost()

    async def more(self) -> list[Piece]:
        """The next pieces. Raises ApiError when the replica is lost or the model fails, CallerLeft."""
        pieces = await self._take()
        if pieces[0].kind is Kind.LOST:
            if self._left:
                raise CallerLeft
            self._metrics.lost(self._pool.model, "told")
            raise self._lost()
        return pieces

    def finished(self, done: Piece) -> dict[str, Any]:
        """The last piece's content, with `soma`: what this request took, in milliseconds, and who answered it."""
        told = json.loads(done.data)
        now = time.monotonic()
        # An answer that comes whole had its first token when the replica says.
        first = self._first or self._began + told.pop("first_seconds")
        soma = {
            "queueMs": _milliseconds(self._began - self._arrived),
            "firstTokenMs": _milliseconds(first - self._arrived),
            "totalMs": _milliseconds(now - self._arrived),
            "model": self._pool.model,
            "replica": self._replica,
        }
        self._metrics.generated(self._pool.model, self._lane, told["usage"], soma)
        return {**told, "soma": soma}

    def leave(self) -> None:
        """The caller is gone: the queue forgets it, or the generation stops at its next token."""
        self._left = True
        if self._ticket is not None:
            self._ticket.cancel()
        if self._work is not None:
            self._work.cancel()

    def end(self) -> None:
        """Frees the slot; a generation that still runs is stopped."""
        if self._work is not None:
            self._work.cancel()
        self._let_go()

    async def _acquire(self) -> None:
        if self._left:
            raise CallerLeft
        self._ticket = asyncio.get_running_loop().create_future()
        try:
            self._lease = await self._pool.acquire(self._lane, self._deadline, self._ticket)
        except asyncio.CancelledError:
            if self._left:
                raise CallerLeft from None
            raise
        self._began = time.monotonic()
        self._replica = self._lease.backend.replica
        self._work = self._lease.backend.start(self._job)

    async def _take(self) -> list[Piece]:
        """What can be told; what ends an answer badly waits until everything before it is told."""
        assert self._work is not None
        pieces = [self._last] if self._last is not None else await self._work.take()
        self._last = None
        chunks = [piece for piece in pieces if piece.kind is Kind.CHUNK]
        if chunks:
            self._first = self._first or time.monotonic()
        end = pieces[-1] if pieces[-1].kind is not Kind.CHUNK else None
        if end is None or end.kind is Kind.DONE:
            return pieces
        if chunks:
            self._last = end
            return chunks
        if end.kind is Kind.FAILED:
            told = json.loads(end.data)
            raise ApiError.of(told["status"], told["body"])
        return [end]

    def _let_go(self) -> None:
        if self._lease is not None:
            self._pool.release(self._lease)
        self._lease = self._work = self._last = None

    def _lost(self) -> ApiError:
        return ApiError(
            503,
            f"the replica {self._replica} that generated the answer is gone; ask again",
            kind="server_error",
            code="replica_lost",
            retry_after=1,
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
