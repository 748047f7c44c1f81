"""Counters in the Prometheus text format; names as Qdrant's where it has the same one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from somagent_vectors.collection import Collection

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """A registry of its own: nothing is shared with other servers of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("method", "endpoint")
        self.responses = Counter("rest_responses", "Answers by status", (*labels, "status"), registry=self._registry)
        self.duration = Histogram(
            "rest_responses_duration_seconds", "Time to the answer", labels, buckets=_SECONDS, registry=self._registry
        )
        self._collections = Gauge("collections", "Number of collections", registry=self._registry)
        self._points = Gauge("collection_points", "Points", ("id",), registry=self._registry)
        self._optimizing = Gauge(
            "collection_running_optimizations", "Optimizations that run", ("id",), registry=self._registry
        )

    def answered(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        self.responses.labels(method, endpoint, status).inc()
        self.duration.labels(method, endpoint).observe(seconds)

    def text(self, collections: Iterable[Collection]) -> bytes:
        present = list(collections)
        self._collections.set(len(present))
        for gauge in (self._points, self._optimizing):
            gauge.clear()
        for collection in present:
            self._points.labels(collection.name).set(collection.points)
            self._optimizing.labels(collection.name).set(int(collection.optimizing))
        return generate_latest(self._registry)
