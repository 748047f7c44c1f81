"""`python -m somagent_vectors`: serves until SIGTERM; ends with 2 at a wrong setting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn

from somagent_vectors.access import Access
from somagent_vectors.api import Api
from somagent_vectors.catalog import Catalog, CatalogError
from somagent_vectors.settings import Settings, SettingsError, read_settings

TICK_SECONDS = 1.0


def main() -> int:
    try:
        settings = read_settings()
        access = Access(settings.key_file, settings.reader_key_file)
        # The server stops at these by itself and then raises them once more, for whoever handled them before it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        return asyncio.run(_serve(settings, access))
    except (SettingsError, CatalogError) as error:
        log("error", str(error))
        return 2


def log(level: str, message: str, **fields: object) -> None:
    """Writes one JSON line to standard error."""
    line = {"level": level, "service": "vector-store", "message": message, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


async def _serve(settings: Settings, access: Access) -> int:
    catalog = Catalog(settings.data)
    api = Api(settings, catalog, access)
    server = uvicorn.Server(_configuration(settings, api))
    keeper = _Keeper(catalog, settings.tls, server)
    api.healthy = lambda: keeper.healthy
    log("info", "serving", port=settings.port, collections=len(catalog.collections))
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(keeper.optimize())]
    try:
        await server.serve()
    finally:
        api.stopping = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await catalog.close()
    log("info", "stopped")
    return 0


def _configuration(settings: Settings, api: Api) -> uvicorn.Config:
    return uvicorn.Config(
        api.application,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls / "tls.crt",
        ssl_keyfile=settings.tls / "tls.key",
        timeout_graceful_shutdown=settings.drain_seconds,
        lifespan="off",
        server_header=False,
        access_log=False,
        log_level="warning",
    )


class _Keeper:
    """What goes on beside the requests."""

    def __init__(self, catalog: Catalog, tls: Path, server: uvicorn.Server) -> None:
        self._catalog = catalog
        self._tls = tls
        self._server = server
        self._certificate = _stamp(tls)
        self.healthy = True

    async def run(self) -> None:
        """Once a second: what was written gets to the disk, a renewed certificate into use."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for collection in self._catalog.collections:
                # A disk that refuses a write must be seen, not retried in silence.
                self.healthy = await self._guarded(collection.maintain)
            self._renew()

    async def optimize(self) -> None:
        """One collection after the other, when it is due."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for collection in self._catalog.collections:
                if collection.optimization_wanted():
                    await self._guarded(collection.optimize)
                    if collection.optimizer_error:
                        log("error", collection.optimizer_error, collection=collection.name)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - one collection's failure must not end the care for the others
            log("error", f"{type(error).__name__}: {error}")
            return False
        return True

    def _renew(self) -> None:
        stamp = _stamp(self._tls)
        context = self._server.config.ssl
        if stamp == self._certificate or context is None:
            return
        with contextlib.suppress(OSError):  # half a renewal: the next tick sees the other half
            context.load_cert_chain(self._tls / "tls.crt", self._tls / "tls.key")
            self._certificate = stamp


def _stamp(tls: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError):
        return tuple(os.stat(tls / name).st_mtime_ns for name in ("tls.crt", "tls.key"))
    return ()


if __name__ == "__main__":
    sys.exit(main())
