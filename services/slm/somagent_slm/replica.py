"""One replica of a model under Ray Serve: a loaded engine that dials the router and works for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from somagent_slm.autoscaling import DEMAND, by_demand
from somagent_slm.channel import DRAINING, ReplicaEnd, dial
from somagent_slm.engine import Engine, load_engine
from somagent_slm.model_spec import ModelSpec
from somagent_slm.promotions import bucket_of, fetch
from somagent_slm.settings import read_settings

_METRICS_SECONDS = 1.0
_LOOK_BACK_SECONDS = 4.0
_HEALTH_SECONDS = 5.0


@dataclass(frozen=True)
class Door:
    """Where the router waits for replicas, and the directory with the certificate that both have."""

    host: str
    port: int
    tls: Path


class Model:
    """Ready means: loaded, and every slot has generated."""

    async def __init__(self, spec: ModelSpec, version: str, door: Door, drain_seconds: int) -> None:
        self._engine = await asyncio.to_thread(_loaded, spec)
        await self._engine.warm_up()
        self._drain_seconds = drain_seconds
        self._end: ReplicaEnd | None = None
        replica = serve.get_replica_context().replica_id.unique_id
        self._joining = asyncio.create_task(
            self._stay_joined(door, {"model": spec.name, "version": version, "replica": replica})
        )

    async def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        if self._joining.done():
            raise RuntimeError("the replica has stopped dialling the router")
        if not await self._engine.answers(freshness=10.0):
            raise RuntimeError("the model gives no token")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {DEMAND: self._end.demand if self._end else 0.0}

    async def __del__(self) -> None:
        """Called by Serve before it ends the process: what is being generated is finished."""
        self._joining.cancel()
        if self._end is None:
            return
        self._end.send(DRAINING)
        deadline = time.monotonic() + self._drain_seconds
        while self._end.busy and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def _stay_joined(self, door: Door, hello: dict[str, Any]) -> None:
        while True:
            self._end = await dial(door.host, door.port, door.tls, self._engine, hello)
            await asyncio.shield(self._end.lost)


def _loaded(spec: ModelSpec) -> Engine:
    promoted = read_settings().promoted
    if spec.sha256 is not None and promoted is not None:
        # The router has it already; this may be another node.
        fetch(bucket_of(promoted), spec)
    return load_engine(spec)


def model_app(spec: ModelSpec, version: str, door: Door, drain_seconds: int) -> Application:
    """The Serve application of one version of a model."""
    return (
        serve.deployment(Model)
        .options(
            name="model",
            **_replicas(spec),
            max_constructor_retry_count=3,
            graceful_shutdown_timeout_s=drain_seconds,
            graceful_shutdown_wait_loop_s=0.5,
            health_check_period_s=_HEALTH_SECONDS,
            ray_actor_options={"num_cpus": spec.cpus},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        .bind(spec, version, door, drain_seconds)
    )


def _replicas(spec: ModelSpec) -> dict[str, Any]:
    if spec.min_replicas == spec.max_replicas:
        return {"num_replicas": spec.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            target_ongoing_requests=spec.target_ongoing,
            metrics_interval_s=_METRICS_SECONDS,
            look_back_period_s=_LOOK_BACK_SECONDS,
            upscale_delay_s=spec.upscale_delay,
            downscale_delay_s=spec.downscale_delay,
            policy=AutoscalingPolicy(policy_function=by_demand),
        )
    }
