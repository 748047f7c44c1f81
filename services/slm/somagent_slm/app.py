"""The Serve application. `somagent_slm.app:app` is the import path for Serve configurations (KubeRay's `serveConfigV2`)."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from somagent_slm.api import Api
from somagent_slm.engine import load_engine
from somagent_slm.settings import read_settings


@serve.ingress()
class Model:
    """One replica: a loaded model behind the API."""

    def __init__(self) -> None:
        self._settings = read_settings()
        self._engine = load_engine(self._settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Api(self._settings, self._engine).application

    async def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        if not await self._engine.answers(freshness=10.0):
            raise RuntimeError("the model gives no token")


def app(arguments: dict[str, Any]) -> Application:
    """Builds the application; `arguments` may hold `replicas` (a whole number), which overrides SLM_REPLICAS."""
    settings = read_settings()
    deployment = serve.deployment(
        Model,
        name="model",
        num_replicas=int(arguments.get("replicas", settings.replicas)),
        # Waiting is done in the replica, where it is measured and limited, not in the proxy.
        max_ongoing_requests=settings.slots + settings.queue + 16,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": 0.5},
        # One line per request, and per health check, would drown what matters.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    return deployment.bind()
