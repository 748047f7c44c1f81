"""How many replicas a model should have. Runs in Serve's controller, which applies bounds and delays."""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingContext

# What a replica reports under this name: its share of the requests that run and wait, as the router has told it.
DEMAND = "demand"


def by_demand(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as give each `target_ongoing_requests`.

    Requests reach replicas without Serve's proxy, so Serve's own count of ongoing requests is zero. Source:
    https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html#custom-autoscaling-policies
    """
    shares = (context.aggregated_metrics or {}).get(DEMAND, {})
    wanted = math.ceil(sum(shares.values()) / context.config.target_ongoing_requests)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, wanted)), {}
