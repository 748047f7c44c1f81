"""`python3 -m somagent_slm.standalone`: the same API in one process without Ray, for development and tests."""

from __future__ import annotations

import sys

import uvicorn

from somagent_slm.api import Api
from somagent_slm.engine import load_engine
from somagent_slm.settings import SettingsError, read_settings


def main() -> int:
    try:
        settings = read_settings()
        application = Api(settings, load_engine(settings)).application
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(
        application,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_directory / "tls.crt",
        ssl_keyfile=settings.tls_directory / "tls.key",
        timeout_graceful_shutdown=settings.drain_seconds,
        access_log=False,
        log_level="warning",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
