"""What the router counts, for Prometheus. Times are in seconds."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (*_SHORT, 60, 120)


class Metrics:
    """One registry of its own for each server; labels are models that exist, never what a caller wrote."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        by_lane = ("model", "lane")
        self._requests = Counter("slm_requests", "Answered requests", (*by_lane, "status"), registry=registry)
        self._prompt = Counter("slm_prompt_tokens", "Tokens read", ("model",), registry=registry)
        self._completion = Counter("slm_completion_tokens", "Tokens written", ("model",), registry=registry)
        self._restarts = Counter(
            "slm_lost_answers", "Answers whose replica was lost", ("model", "outcome"), registry=registry
        )
        self._queue = Histogram("slm_queue_seconds", "Until a slot was free", by_lane, buckets=_SHORT, registry=registry)
        self._first = Histogram(
            "slm_first_token_seconds", "Until the first token", by_lane, buckets=_SHORT, registry=registry
        )
        self._total = Histogram("slm_request_seconds", "Until the last token", by_lane, buckets=_LONG, registry=registry)
        self._changes = Counter("slm_model_changes", "Changes of models", ("model", "outcome"), registry=registry)
        self._gauges = {
            name: Gauge(f"slm_{name}", text, labels, registry=registry)
            for name, text, labels in (
                ("waiting", "Requests that wait for a slot", by_lane),
                ("replicas", "Replicas that answer", ("model",)),
                ("promoted", "Promoted models that are held, and that wait for a place", ("state",)),
                ("slots", "Conversations that can be generated at once", ("model",)),
                ("slots_busy", "Slots that generate now, by llama.cpp's own account", ("model",)),
                ("decodes", "Steps that llama.cpp has computed", ("model",)),
            )
        }

    def answered(self, status: int, model: str = "none", lane: str = "none") -> None:
        self._requests.labels(model, lane, str(status)).inc()

    def generated(self, model: str, lane: str, usage: dict[str, int], timings: dict[str, float]) -> None:
        self._prompt.labels(model).inc(usage["prompt_tokens"])
        self._completion.labels(model).inc(usage["completion_tokens"])
        self._queue.labels(model, lane).observe(timings["queueMs"] / 1000)
        self._first.labels(model, lane).observe(timings["firstTokenMs"] / 1000)
        self._total.labels(model, lane).observe(timings["totalMs"] / 1000)

    def lost(self, model: str, outcome: str) -> None:
        """`outcome` is `repeated` (nothing had been told yet) or `told` (the caller got the error)."""
        self._restarts.labels(model, outcome).inc()

    def changed(self, model: str, outcome: str) -> None:
        """`outcome` is `switched`, `refused` or `retired`."""
        self._changes.labels(model, outcome).inc()

    def measured(self, name: str, value: float, *labels: Any) -> None:
        self._gauges[name].labels(*map(str, labels)).set(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)
