"""`python -m somagent_vectors`: serves until SIGTERM; ends with 2 at a wrong setting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import uvloop
from somagent_slm.environment import SettingsError
from somagent_slm.https import serve, write_log
from somagent_slm.request_log import logged

from somagent_vectors.access import Access
from somagent_vectors.api import Api
from somagent_vectors.catalog import Catalog, CatalogError
from somagent_vectors.settings import Settings, read_settings

TICK_SECONDS = 1.0
log = partial(write_log, "vector-store")


def main() -> int:
    try:
        settings = read_settings()
        access = Access(settings.key_file, settings.reader_key_file)
        return uvloop.run(_serve(settings, access))
    except (SettingsError, CatalogError) as error:
        log("error", str(error))
        return 2


async def _serve(settings: Settings, access: Access) -> int:
    catalog = Catalog(settings.data)
    keeper = _Keeper(catalog)
    api = Api(settings, catalog, access, healthy=lambda: keeper.healthy)
    log("info", "serving", port=settings.listener.port, collections=len(catalog.collections))
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(keeper.optimize())]
    try:
        await serve(logged(api.application, log), settings.listener)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await catalog.close()
    log("info", "stopped")
    return 0


class _Keeper:
    """What goes on beside the requests."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.healthy = True

    async def run(self) -> None:
        """Once a second: what was written gets to the disk."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            # A disk that refuses a write must be seen, not retried in silence.
            self.healthy = all([await _guarded(each.maintain) for each in self._catalog.collections])

    async def optimize(self) -> None:
        """One collection after the other, when it is due."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for collection in self._catalog.collections:
                if collection.optimization_wanted():
                    await _guarded(collection.optimize)
                    if collection.optimizer_error:
                        log("error", collection.optimizer_error, collection=collection.name)


async def _guarded(work: Callable[[], Awaitable[None]]) -> bool:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - one collection's failure must not end the care for the others
        log("error", f"{type(error).__name__}: {error}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
