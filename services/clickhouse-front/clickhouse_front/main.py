"""`python3 -m clickhouse_front.main`: serves until SIGTERM, then ends its queries and the engine in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from clickhouse_front.api import Api
from clickhouse_front.engine import Engine
from clickhouse_front.errors import ClickHouseError
from clickhouse_front.health import Health
from clickhouse_front.landlock import LandlockError
from clickhouse_front.log import log
from clickhouse_front.metrics import Metrics
from clickhouse_front.settings import Settings, SettingsError, read_settings
from clickhouse_front.users import Users

_CERTIFICATE_EVERY = 30.0
# Until every node has heard that this pod is not an endpoint any more, new connections still come.
_NEWS = 1.5


class _Server(uvicorn.Server):
    """A server that leaves signals to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(application: Any, settings: Settings, port: int, **options: Any) -> _Server:
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        **options,
    )
    config.load()
    return _Server(config)


async def serve(settings: Settings, users: Users) -> None:
    """Serves until the process is asked to end. Raises LandlockError and ClickHouseError when it can't begin."""
    begun = time.monotonic()
    engine, metrics = Engine(settings), Metrics()
    await engine.start()
    health = Health(engine, metrics)
    certificate = settings.tls_directory / "tls.crt"
    api = _server(
        Api(engine, users, metrics),
        settings,
        settings.port,
        ssl_certfile=certificate,
        ssl_keyfile=settings.tls_directory / "tls.key",
        timeout_keep_alive=30,
    )
    probes = _server(health, settings, settings.health_port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(server.serve()) for server in (api, probes)]
    renewal = asyncio.create_task(_renew(api, settings.tls_directory))
    while not (api.started and probes.started) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    health.ready = True
    ports = {"port": _port(api), "health_port": _port(probes)}
    log("info", "clickhouse is listening", **ports, engine=engine.version, seconds=round(time.monotonic() - begun, 2))
    await asyncio.wait({*tasks, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    health.ready = False
    await asyncio.sleep(_NEWS)
    api.should_exit = True
    await tasks[0]
    renewal.cancel()
    await engine.stop()
    probes.should_exit = True
    await tasks[1]


async def _renew(server: _Server, directory: Path) -> None:
    """Takes a renewed certificate over for new connections, once it can be read."""
    files = [directory / "tls.crt", directory / "tls.key"]
    loaded = [path.stat().st_mtime_ns for path in files]
    while True:
        await asyncio.sleep(_CERTIFICATE_EVERY)
        try:
            found = [path.stat().st_mtime_ns for path in files]
            context = server.config.ssl
            if found != loaded and context is not None:
                context.load_cert_chain(*files)
                loaded = found
                log("info", "a renewed certificate was taken over")
        except (OSError, ssl.SSLError) as error:
            log("warn", "the renewed certificate can't be read yet", error=str(error))


def _port(server: _Server) -> int:
    ports = [sock.getsockname()[1] for each in server.servers for sock in each.sockets]
    return ports[0] if ports else 0


def main() -> int:
    try:
        settings = read_settings()
        asyncio.run(serve(settings, Users(settings.users_directory)))
    except (SettingsError, LandlockError, ClickHouseError) as error:
        log("fatal", str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
