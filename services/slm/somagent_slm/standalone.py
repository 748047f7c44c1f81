"""`python3 -m somagent_slm.standalone`: the same API in one process without Ray, for development and tests."""

from __future__ import annotations

import asyncio
import sys

from somagent_slm.api import Api
from somagent_slm.backend import LocalBackend
from somagent_slm.engine import load_engine
from somagent_slm.hub import Hub
from somagent_slm.metrics import Metrics
from somagent_slm.server import https_server
from somagent_slm.settings import Settings, SettingsError, read_settings


def main() -> int:
    try:
        settings = read_settings()
        asyncio.run(_serve(settings))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


async def _serve(settings: Settings) -> None:
    hub = Hub(settings)
    for spec in settings.models:
        engine = load_engine(spec)
        await engine.warm_up()
        hub.join(LocalBackend(spec.name, spec.version, engine))
        hub.pool(spec.name).switch(spec.version)
    await https_server(settings, Api(settings, hub, Metrics()).application).serve()


if __name__ == "__main__":
    sys.exit(main())
