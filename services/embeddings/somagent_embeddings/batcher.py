"""The queue in front of the model: bounded, with a deadline, short requests before bulk, lengths of a kind together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from somagent_slm.errors import ApiError

from somagent_embeddings.encoder import Encoder, Tokens

BATCH_TOKENS = 1024
"""Tokens of one run of the model, padding counted: what a short request waits for at most, and what sets the memory."""
SHORT_REQUEST = 8
"""Texts up to which a request goes before bulk."""
BULK_SHARE = 4
"""One run in so many is bulk even while short requests wait."""


@dataclass(eq=False)
class _Job:
    tokens: Tokens
    deadline: float
    vector: asyncio.Future[np.ndarray] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Belongs to one event loop; the model runs in a thread of its own."""

    def __init__(self, encoder: Encoder, *, queue: int, deadline: float) -> None:
        """`queue` is how many texts may wait, `deadline` how long, in seconds."""
        self._encoder = encoder
        self._limit = queue
        self._deadline = deadline
        self._short: deque[_Job] = deque()
        self._bulk: deque[_Job] = deque()
        self._runs = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        # Of the last runs; before the first one, a guess on the safe side.
        self._seconds_per_text = 0.05
        self.last_run_at = 0.0
        self.batch_sizes: list[int] = []

    @property
    def waiting(self) -> int:
        return len(self._short) + len(self._bulk)

    @property
    def retry_after(self) -> int:
        """Whole seconds after which what waits now should be done."""
        return max(1, round(self.waiting * self._seconds_per_text))

    async def embed(self, texts: Sequence[Tokens]) -> np.ndarray:
        """One row per text. Raises ApiError 429 when the queue is full or the deadline comes first.

        A caller who leaves takes what still waits of his along.
        """
        if self.waiting + len(texts) > self._limit and self.waiting > 0:
            raise self._busy(f"{self.waiting} texts are waiting, the limit is {self._limit}", "queue_full")
        deadline = time.monotonic() + self._deadline
        jobs = [_Job(tokens, deadline) for tokens in texts]
        (self._short if len(jobs) <= SHORT_REQUEST else self._bulk).extend(jobs)
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        try:
            return np.stack(await asyncio.gather(*(job.vector for job in jobs)))
        finally:
            for job in jobs:
                job.vector.cancel()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        try:
            while batch := self._next():
                await self._run(batch)
        finally:
            self._task = None

    def _next(self) -> list[_Job]:
        """The jobs of the next run: the oldest one, and those of like length that fit beside it."""
        self._runs += 1
        queue = self._bulk if self._bulk and (not self._short or self._runs % BULK_SHARE == 0) else self._short
        self._drop_late(queue)
        if not queue:
            return self._next() if self.waiting else []
        first = queue.popleft()
        batch, longest = [first], len(first.tokens.ids)
        for job in sorted(queue, key=lambda job: abs(len(job.tokens.ids) - len(first.tokens.ids))):
            longest = max(longest, len(job.tokens.ids))
            if (len(batch) + 1) * longest > BATCH_TOKENS:
                break
            batch.append(job)
        chosen = set(map(id, batch))
        remaining = [job for job in queue if id(job) not in chosen]
        queue.clear()
        queue.extend(remaining)
        return batch

    def _drop_late(self, queue: deque[_Job]) -> None:
        now = time.monotonic()
        present = [job for job in queue if not job.vector.done()]
        queue.clear()
        for job in present:
            if job.deadline > now:
                queue.append(job)
            else:
                message = f"the text waited longer than {self._deadline:g} s"
                job.vector.set_exception(self._busy(message, "queue_deadline"))

    async def _run(self, batch: list[_Job]) -> None:
        started = time.monotonic()
        tokens = [job.tokens for job in batch]
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._encoder.embed, tokens)
        except Exception as error:  # noqa: BLE001 - every failure must reach the callers who wait
            failure = ApiError(500, f"the model failed: {error}", kind="server_error", code="model_failed")
            _settle(batch, failure)
            return
        self.last_run_at = time.monotonic()
        self.batch_sizes.append(len(batch))
        self._seconds_per_text += 0.2 * ((self.last_run_at - started) / len(batch) - self._seconds_per_text)
        for job, row in zip(batch, rows, strict=True):
            if not job.vector.done():
                job.vector.set_result(row)

    def _busy(self, reason: str, code: str) -> ApiError:
        message = f"{reason}; try again in {self.retry_after} s"
        return ApiError(429, message, kind="rate_limit_error", code=code)


def _settle(batch: list[_Job], failure: ApiError) -> None:
    for job in batch:
        if not job.vector.done():
            job.vector.set_exception(failure)
