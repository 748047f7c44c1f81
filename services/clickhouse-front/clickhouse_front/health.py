"""/healthz, /readyz and /metrics, without credentials: for probes and Prometheus."""

from __future__ import annotations

import json
from typing import Any

from clickhouse_front.engine import Engine
from clickhouse_front.errors import ClickHouseError
from clickhouse_front.metrics import Metrics
from clickhouse_front.response import Response, Send

_FIGURES = (
    "SELECT 'memory_bytes', toFloat64(value) FROM system.metrics WHERE metric = 'MemoryTracking' "
    "UNION ALL SELECT 'merges', toFloat64(count()) FROM system.merges "
    "UNION ALL SELECT 'parts', toFloat64(count()) FROM system.parts WHERE active "
    "UNION ALL SELECT 'rows', toFloat64(sum(rows)) FROM system.parts WHERE active "
    "UNION ALL SELECT 'disk_bytes', toFloat64(sum(bytes_on_disk)) FROM system.parts WHERE active "
    "UNION ALL SELECT 'queries', toFloat64(count() - 1) FROM system.processes"
)


class Health:
    """The health server; `ready` is taken away when the process is told to stop."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self.ready = False

    async def __call__(self, scope: dict[str, Any], _receive: object, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = Response(send)
        if scope["path"] == "/healthz":
            await self._json(response, 200, {"alive": True})
        elif scope["path"] == "/readyz":
            await self._ready(response)
        elif scope["path"] == "/metrics":
            await self._measure(response)
        else:
            await self._json(response, 404, {"error": "only /healthz, /readyz and /metrics are here"})

    async def _ready(self, response: Response) -> None:
        try:
            engine = await self._engine.monitor("SELECT 1") == "1\n"
        except ClickHouseError:
            engine = False
        ready = self.ready and engine
        await self._json(response, 200 if ready else 503, {"ready": ready, "engine": engine})

    async def _measure(self, response: Response) -> None:
        lines = (await self._engine.monitor(_FIGURES)).splitlines()
        figures = {name: float(value) for name, value in (line.split("\t") for line in lines)}
        await response.whole(200, self._metrics.text(figures), {"content-type": "text/plain; version=0.0.4"})

    async def _json(self, response: Response, status: int, body: dict[str, object]) -> None:
        await response.whole(status, json.dumps(body).encode(), {"content-type": "application/json"})
