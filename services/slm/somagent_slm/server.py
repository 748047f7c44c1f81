"""The HTTPS server in front of the API."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from somagent_slm.settings import Settings


def https_server(settings: Settings, application: ASGIApp) -> uvicorn.Server:
    """A server that is not running yet; it drains for as long as the settings say."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_directory / "tls.crt",
            ssl_keyfile=settings.tls_directory / "tls.key",
            timeout_graceful_shutdown=settings.drain_seconds,
            # Longer than a client keeps an idle connection: a request that meets a closing one would fail.
            timeout_keep_alive=75,
            http="httptools",
            lifespan="off",
            ws="none",
            access_log=False,
            log_level="warning",
        )
    )
