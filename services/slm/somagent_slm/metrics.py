"""Counters of one replica in the Prometheus text format."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Metrics:
    """Belongs to one event loop; behind several replicas each scrape sees one of them."""

    def __init__(self) -> None:
        self._answers: Counter[int] = Counter()
        self._totals: Counter[str] = Counter()

    def answered(self, status: int) -> None:
        self._answers[status] += 1

    def generated(self, usage: dict[str, Any], timings: dict[str, Any]) -> None:
        self._totals["prompt_tokens_total"] += usage.get("prompt_tokens", 0)
        self._totals["completion_tokens_total"] += usage.get("completion_tokens", 0)
        self._totals["queue_seconds_total"] += timings.get("queue_ms", 0) / 1000
        self._totals["generation_seconds_total"] += timings.get("total_ms", 0) / 1000

    def text(self, work: dict[str, float]) -> str:
        """All counters, with the engine's own account of its `decodes` and `busy` slots."""
        lines = ["# TYPE slm_requests_total counter"]
        lines += [f'slm_requests_total{{status="{status}"}} {count}' for status, count in sorted(self._answers.items())]
        for name, value in sorted(self._totals.items()):
            lines += [f"# TYPE slm_{name} counter", f"slm_{name} {value}"]
        lines += ["# TYPE slm_decodes_total counter", f"slm_decodes_total {work['decodes']}"]
        lines += ["# TYPE slm_slots_busy gauge", f"slm_slots_busy {work['busy']}"]
        return "\n".join(lines) + "\n"
