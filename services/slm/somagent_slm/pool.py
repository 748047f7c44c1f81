"""Who is answered next: for each model two lanes with bounded queues in front of the slots of its replicas."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from somagent_slm.backend import Backend
from somagent_slm.errors import ApiError

_LONGEST_RETRY_SECONDS = 60
# Weight of the newest answer in the mean time of an answer.
_NEWEST = 0.1


class Lane(StrEnum):
    """Interactive requests go first, always; batch requests take what is left."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True)
class Limits:
    """How many may wait in a lane, and for how long (seconds) unless they say so."""

    length: int
    deadline: float


@dataclass
class _Seat:
    """One replica and how many of its slots are taken."""

    backend: Backend
    busy: int = 0


@dataclass
class Lease:
    """A slot that is ours until `Pool.release`."""

    seat: _Seat
    lane: Lane
    started: float = field(default_factory=time.monotonic)

    @property
    def backend(self) -> Backend:
        return self.seat.backend


class Pool:
    """The replicas of one model. Belongs to one event loop.

    One slot in four stays free of batch work, at least one where there are two: so a flood of batch requests finds
    an interactive one a place at once.
    """

    def __init__(self, model: str, limits: dict[Lane, Limits]) -> None:
        self.model = model
        self.current: str | None = None
        self._limits = limits
        self._seats: list[_Seat] = []
        self._waiting: dict[Lane, deque[asyncio.Future[Lease]]] = {lane: deque() for lane in Lane}
        self._batch_busy = 0
        self._mean_seconds = 0.5

    async def acquire(self, lane: Lane, deadline: float | None, ticket: asyncio.Future[Lease]) -> Lease:
        """A slot, at once or within `deadline` seconds; who cancels the ticket leaves the queue.

        Raises ApiError 429 with the time to come back when the queue is full or the deadline passes, 503 when there is
        no replica at all by then.
        """
        limits = self._limits[lane]
        waiting = self._waiting[lane]
        if not self._ahead(lane) and (lease := self._take(lane)) is not None:
            return lease
        if len(waiting) >= limits.length:
            full = f"{len(waiting)} {lane} requests wait for {self.model}, the limit is {limits.length}"
            raise self._too_many(lane, full, "queue_full")
        waiting.append(ticket)
        patience = limits.deadline if deadline is None else deadline
        try:
            async with asyncio.timeout(patience):
                return await ticket
        except TimeoutError:
            self._give_back(ticket)
            raise self._too_late(lane, patience) from None
        except asyncio.CancelledError:
            self._give_back(ticket)
            raise
        finally:
            self._withdraw(lane, ticket)

    def release(self, lease: Lease) -> None:
        """Gives the slot to whoever is next."""
        lease.seat.busy -= 1
        self._batch_busy -= lease.lane is Lane.BATCH
        self._mean_seconds += _NEWEST * (time.monotonic() - lease.started - self._mean_seconds)
        self._serve_next()

    def join(self, backend: Backend) -> None:
        self._seats.append(_Seat(backend))
        self._serve_next()

    def leave(self, backend: Backend) -> None:
        """Gives the replica no more work; what it is doing goes on."""
        self._seats = [seat for seat in self._seats if seat.backend is not backend]

    def switch(self, version: str) -> None:
        """From now on this version answers; what the other ones are doing goes on."""
        self.current = version
        self._serve_next()

    def count(self, version: str) -> int:
        """Replicas of a version."""
        return sum(seat.backend.version == version for seat in self._seats)

    def busy(self, version: str) -> int:
        """Requests in the hands of a version."""
        return sum(seat.busy for seat in self._seats if seat.backend.version == version)

    def backends(self) -> list[Backend]:
        """The replicas that answer now."""
        return [seat.backend for seat in self._serving()]

    def slots(self) -> int:
        return sum(seat.backend.slots for seat in self._serving())

    def waiting(self, lane: Lane) -> int:
        return len(self._waiting[lane])

    def tell_demand(self) -> None:
        """Tells each replica its share of what is asked for: Ray scales by the sum."""
        seats = self._serving()
        wanted = sum(seat.busy for seat in seats) + sum(map(len, self._waiting.values()))
        for seat in seats:
            seat.backend.tell_demand(wanted / len(seats))

    def retry_after(self, lane: Lane) -> int:
        """Whole seconds until what waits now should be done."""
        ahead = self.waiting(lane) + (self.waiting(Lane.INTERACTIVE) if lane is Lane.BATCH else 0)
        seconds = self._mean_seconds * (ahead + 1) / max(1, self.slots())
        return min(_LONGEST_RETRY_SECONDS, max(1, math.ceil(seconds)))

    def _serving(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.backend.version == self.current]

    def _ahead(self, lane: Lane) -> bool:
        return bool(self._waiting[lane]) or (lane is Lane.BATCH and bool(self._waiting[Lane.INTERACTIVE]))

    def _take(self, lane: Lane) -> Lease | None:
        if lane is Lane.BATCH and self._batch_busy >= self._batch_slots():
            return None
        free = [seat for seat in self._serving() if seat.busy < seat.backend.slots]
        if not free:
            return None
        seat = min(free, key=lambda seat: seat.busy / seat.backend.slots)
        seat.busy += 1
        self._batch_busy += lane is Lane.BATCH
        return Lease(seat, lane)

    def _batch_slots(self) -> int:
        slots = self.slots()
        return slots - math.ceil(slots / 4) if slots > 1 else slots

    def _serve_next(self) -> None:
        for lane in Lane:
            waiting = self._waiting[lane]
            while waiting:
                if waiting[0].done():
                    waiting.popleft()
                    continue
                lease = self._take(lane)
                if lease is None:
                    break
                waiting.popleft().set_result(lease)

    def _give_back(self, ticket: asyncio.Future[Lease]) -> None:
        """The slot may have come in the very moment that its caller gave up."""
        if ticket.done() and not ticket.cancelled():
            self.release(ticket.result())

    def _withdraw(self, lane: Lane, ticket: asyncio.Future[Lease]) -> None:
        if ticket in self._waiting[lane]:
            self._waiting[lane].remove(ticket)

    def _too_many(self, lane: Lane, message: str, code: str) -> ApiError:
        seconds = self.retry_after(lane)
        return ApiError(
            429, f"{message}; come back in {seconds} s", kind="rate_limit_error", code=code, retry_after=seconds
        )

    def _too_late(self, lane: Lane, patience: float) -> ApiError:
        if self._serving():
            late = f"no slot of {self.model} came free within {patience * 1000:.0f} ms"
            return self._too_many(lane, late, "queue_deadline")
        return ApiError(
            503,
            f"{self.model} has no replica now; come back in 2 s",
            kind="server_error",
            code="model_unavailable",
            retry_after=2,
        )
