"""The Serve application. `somagent_slm.app:app` is the import path for Serve configurations (KubeRay's `serveConfigV2`)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import ray
import uvicorn
import uvloop
from ray import serve
from ray.serve import Application

from somagent_slm.api import Api
from somagent_slm.channel import listen
from somagent_slm.fleet import Fleet
from somagent_slm.hub import Hub
from somagent_slm.metrics import Metrics
from somagent_slm.process import log
from somagent_slm.replica import Door
from somagent_slm.server import https_server
from somagent_slm.settings import Settings, read_settings
from somagent_slm.shelf import Shelf


class Router:
    """The one that answers HTTPS: it admits, queues, and hands each request to a replica by a channel of its own.

    It runs on an event loop in a thread of its own, away from Serve's.
    """

    def __init__(self) -> None:
        self._settings = read_settings()
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="router", daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Serve replaces the router when this raises."""
        if not self._thread.is_alive():
            raise RuntimeError("the router's loop has ended")

    def __del__(self) -> None:
        """Called by Serve before it ends the process: requests that are being answered are finished."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(self._settings.drain_seconds + 1)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve(self._settings))
        except Exception as error:  # noqa: BLE001 - the thread's last word, check_health does the rest
            log("error", f"the router failed: {error}")

    async def _serve(self, settings: Settings) -> None:
        promoted = settings.promoted
        shelf = Shelf(promoted.places, promoted.idle_seconds) if promoted else Shelf(0, 0)
        hub, metrics = Hub(settings, shelf.asked), Metrics()
        host = ray.util.get_node_ip_address()
        # Kept: a server that nobody holds is closed by the garbage collector.
        replicas = await listen(host, settings.channel_port, settings.tls_directory, hub.join, hub.leave)
        door = Door(host, settings.channel_port, settings.tls_directory)
        fleet = Fleet(settings, hub, metrics, door, shelf)
        self._server = https_server(settings, Api(settings, hub, metrics).application)
        tasks = [asyncio.create_task(part) for part in (fleet.run(), hub.tell_demand())]
        server = asyncio.create_task(self._server.serve())
        try:
            done, _ = await asyncio.wait([*tasks, server], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            replicas.close()


def app(_arguments: dict[str, Any]) -> Application:
    """Builds the application; the router deploys the models that the settings declare."""
    settings = read_settings()
    deployment = serve.deployment(
        Router,
        name="router",
        num_replicas=1,
        graceful_shutdown_timeout_s=settings.drain_seconds + 2,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        # On the head, whose address the Service has.
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    return deployment.bind()
