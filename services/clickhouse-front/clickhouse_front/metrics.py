"""What is measured, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of the front; figures of the engine are read when they are asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.queries = Counter("clickhouse_front_queries", "Finished queries", ["role", "kind", "code"], registry=registry)
        self.seconds = Histogram(
            "clickhouse_front_query_seconds",
            "Time of queries",
            ["role", "kind"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self.running = Gauge("clickhouse_front_running_queries", "Queries that run", registry=registry)
        self.refused = Counter("clickhouse_front_refused_logins", "Requests with wrong credentials", registry=registry)
        self.written = Counter("clickhouse_front_written_rows", "Rows written", registry=registry)
        self._engine = Gauge("clickhouse_engine", "Figures of the engine", ["name"], registry=registry)

    def text(self, engine: dict[str, float]) -> bytes:
        for name, value in engine.items():
            self._engine.labels(name).set(value)
        return generate_latest(self._registry)
