"""Group commit: one fsync of the write-ahead log serves every write that came before it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from somagent_vectors.files import sync


class Commit:
    """Belongs to one event loop. The engine writes its log into the page cache; here it reaches the disk.

    A killed process loses nothing of the page cache; what this adds is survival of the machine's own end.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._closed: set[str] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def durable(self) -> None:
        """Returns when everything that was written before the call is on the disk. Raises OSError."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    await asyncio.to_thread(self._sync)
                except OSError as error:
                    _settle(group, error)
                else:
                    _settle(group, None)
        finally:
            self._task = None

    def _sync(self) -> None:
        for path in self._log.iterdir():
            # A finished segment never changes again.
            if path.name in self._closed:
                continue
            sync(path)
            if path.name.startswith("closed-"):
                self._closed.add(path.name)
        sync(self._log)


def _settle(group: list[asyncio.Future[None]], error: OSError | None) -> None:
    for done in group:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
