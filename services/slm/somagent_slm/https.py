"""An HTTPS server around an ASGI application, for servers without Ray: renewed certificates, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

RENEWAL_SECONDS = 1.0


@dataclass(frozen=True)
class Listener:
    """Where to listen and with what. `tls` has tls.crt and tls.key; `drain_seconds` is for requests that go on."""

    host: str
    port: int
    tls: Path
    drain_seconds: int


async def serve(application: Any, listener: Listener) -> None:
    """Serves until SIGTERM or SIGINT and lets requests finish. A renewed certificate is used for new connections."""
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=listener.host,
            port=listener.port,
            ssl_certfile=listener.tls / "tls.crt",
            ssl_keyfile=listener.tls / "tls.key",
            timeout_graceful_shutdown=listener.drain_seconds,
            # Longer than clients keep an idle connection: none meets a server that is just closing.
            timeout_keep_alive=75,
            lifespan="off",
            server_header=False,
            access_log=False,
            log_level="warning",
        )
    )
    # uvicorn stops at these and then raises them once more, for whoever handled them before: nobody does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    renewal = asyncio.create_task(_renew(server, listener.tls))
    try:
        await server.serve()
    finally:
        renewal.cancel()


def write_log(service: str, level: str, message: str, **fields: object) -> None:
    """Writes one JSON line to standard error."""
    line = {"level": level, "service": service, "message": message, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


async def _renew(server: uvicorn.Server, tls: Path) -> None:
    known = _stamp(tls)
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        stamp, context = _stamp(tls), server.config.ssl
        if stamp == known or context is None:
            continue
        with contextlib.suppress(OSError):  # half a renewal: the next look sees the other half
            context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
            known = stamp


def _stamp(tls: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError):
        return tuple(os.stat(tls / name).st_mtime_ns for name in ("tls.crt", "tls.key"))
    return ()
