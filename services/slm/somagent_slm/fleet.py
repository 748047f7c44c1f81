"""Keeps the models that run like the models that are declared, without a moment in which one is not served.

A changed model is deployed beside the old one, warmed, and switched to; the old one finishes what it has begun and goes.
"""

from __future__ import annotations

import asyncio
import time
from xml.etree import ElementTree

from ray import serve
from ray.serve import RunTarget

from somagent_slm.hub import Hub
from somagent_slm.metrics import Metrics
from somagent_slm.model_file import find_model
from somagent_slm.model_spec import ModelSpec, SettingsError
from somagent_slm.pool import Pool
from somagent_slm.process import log
from somagent_slm.promotions import Promotions
from somagent_slm.replica import Door, model_app
from somagent_slm.settings import PromotedSettings, Settings, read_models
from somagent_slm.shelf import Shelf

POLL_SECONDS = 1.0
FIRST_LOOK_SECONDS = 10.0
STATUS_SECONDS = 0.5
WARM_SECONDS = 600.0
_PREFIX = "model-"


class Fleet:
    """Belongs to the router's event loop; Serve is asked in threads."""

    def __init__(self, settings: Settings, hub: Hub, metrics: Metrics, door: Door, shelf: Shelf) -> None:
        self._settings, self._hub, self._metrics, self._door = settings, hub, metrics, door
        self._shelf = shelf
        self._declared = settings.models
        self._promoted: tuple[ModelSpec, ...] = ()
        self._looked = asyncio.Event()
        self._complaint = ""
        self._versions: dict[str, str] = {}
        self._refused: set[str] = set()
        self._changes: dict[str, asyncio.Task[None]] = {}
        self._serve = asyncio.Lock()

    async def run(self) -> None:
        """Never ends."""
        async with asyncio.TaskGroup() as group:
            if self._settings.promoted is not None:
                group.create_task(self._follow_promotions(self._settings.promoted))
                # So that what an earlier router serves is known; a store that is away must not keep the others waiting.
                await asyncio.wait([asyncio.create_task(self._looked.wait())], timeout=FIRST_LOOK_SECONDS)
            group.create_task(self._follow_declared())

    async def _follow_declared(self) -> None:
        await asyncio.to_thread(self._remove_strangers)
        while True:
            try:
                self._reconcile()
            except OSError as error:
                # A model's file that vanished: what is loaded goes on.
                self._complain(str(error))
            await asyncio.sleep(POLL_SECONDS)

    def _reconcile(self) -> None:
        self._read()
        for name in [name for name in self._changes if self._changes[name].done()]:
            if (error := self._changes.pop(name).exception()) is not None:
                log("warning", "a change of a model is tried again", model=name, problem=str(error))
        wanted = self._wanted()
        versions = {spec.name: spec.version for spec in wanted}
        for spec in wanted:
            version = versions[spec.name]
            if version not in (self._versions.get(spec.name), *self._refused) and spec.name not in self._changes:
                self._changes[spec.name] = asyncio.create_task(self._change(spec, version))
        for name in set(self._versions) - set(versions) - set(self._changes):
            self._changes[name] = asyncio.create_task(self._retire(name))

    def _wanted(self) -> tuple[ModelSpec, ...]:
        """A declared model goes before a promoted one of the same name; of these as many as have a place."""
        declared = {spec.name for spec in self._declared}
        held = self._shelf.choose(tuple(spec for spec in self._promoted if spec.name not in declared))
        self._metrics.measured("promoted", self._shelf.held, "held")
        self._metrics.measured("promoted", self._shelf.waiting, "waiting")
        return (*self._declared, *held)

    async def _follow_promotions(self, settings: PromotedSettings) -> None:
        """While the store can't be reached, what is loaded goes on."""
        promotions = Promotions(settings, self._settings.models[0], self._metrics)
        while True:
            try:
                self._promoted = await asyncio.to_thread(promotions.read)
            except (OSError, SettingsError, ElementTree.ParseError) as error:
                log("warning", f"promoted models can't be looked for: {error}")
            self._looked.set()
            await asyncio.sleep(settings.poll_seconds)

    def _read(self) -> None:
        """Takes over what the models file says now; what can't be used is said once and changes nothing."""
        if self._settings.models_file is None:
            return
        try:
            self._declared = read_models(self._settings.models_file)
        except SettingsError as error:
            self._complain(str(error))

    def _complain(self, problem: str) -> None:
        if problem != self._complaint:
            self._complaint = problem
            log("error", f"the models stay as they are: {problem}")

    async def _change(self, spec: ModelSpec, version: str) -> None:
        pool = self._hub.pool(spec.name)
        application = _application(spec.name, version)
        started = time.monotonic()
        problem = await self._deploy(spec, version, application)
        while problem is None and pool.count(version) < spec.min_replicas:
            await asyncio.sleep(STATUS_SECONDS)
            async with self._serve:
                problem = await asyncio.to_thread(_problem, application)
            if time.monotonic() - started > WARM_SECONDS:
                problem = f"it is not warm after {WARM_SECONDS:.0f} s"
        if problem is not None:
            await self._refuse(spec.name, version, application, problem)
            return
        old = pool.current
        pool.switch(version)
        self._versions[spec.name] = version
        self._metrics.changed(spec.name, "switched")
        log("info", "model ready", model=spec.name, version=version, seconds=round(time.monotonic() - started, 1))
        if old is not None and old != version:
            await self._drain(spec.name, old)

    async def _deploy(self, spec: ModelSpec, version: str, application: str) -> str | None:
        """Why the version can't be served, ever; None when it is on its way. Raises what Serve raises: that may pass."""
        try:
            # Here, where a wrong file is a message; in a replica it would be a crash, three times.
            await asyncio.to_thread(find_model, spec.path, spec.quantize)
        except (SettingsError, OSError) as error:
            return str(error)
        # Serve's client is not made for two threads.
        async with self._serve:
            await asyncio.to_thread(self._run, application, spec, version)
        return None

    def _run(self, application: str, spec: ModelSpec, version: str) -> None:
        running = serve.status().applications.get(application)
        if running is not None and running.status == "DELETING":
            raise RuntimeError("the same version is still being unloaded")
        # A router that was restarted finds its models running: deploying them again would replace their replicas.
        if running is not None:
            return
        target = model_app(spec, version, self._door, self._settings.drain_seconds)
        serve.run_many(
            [RunTarget(target, name=application, route_prefix=None)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )

    async def _refuse(self, model: str, version: str, application: str, problem: str) -> None:
        self._refused.add(version)
        self._metrics.changed(model, "refused")
        pool = self._hub.pool(model)
        log("error", "the model can't be served", model=model, version=version, stays=pool.current, problem=problem)
        await self._delete(application)
        if pool.current is None:
            self._hub.forget(model)

    async def _retire(self, model: str) -> None:
        version = self._versions.pop(model)
        pool = self._hub.pool(model)
        # No new requests; those that are on their way are finished.
        self._hub.forget(model)
        await self._drained(pool, version)
        await self._delete(_application(model, version))
        self._metrics.changed(model, "retired")
        log("info", "model retired", model=model, version=version)

    async def _drain(self, model: str, version: str) -> None:
        await self._drained(self._hub.pool(model), version)
        await self._delete(_application(model, version))

    async def _drained(self, pool: Pool, version: str) -> None:
        deadline = time.monotonic() + self._settings.drain_seconds
        while pool.busy(version) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def _delete(self, application: str) -> None:
        async with self._serve:
            await asyncio.to_thread(serve.delete, application, _blocking=False)

    def _remove_strangers(self) -> None:
        """Applications of an earlier router that nobody declares any more."""
        wanted = {_application(spec.name, spec.version) for spec in self._wanted()}
        for name in serve.status().applications:
            if name.startswith(_PREFIX) and name not in wanted:
                serve.delete(name, _blocking=False)


def _application(model: str, version: str) -> str:
    return f"{_PREFIX}{model}-{version}"


def _problem(application: str) -> str | None:
    status = serve.status().applications.get(application)
    if status is None:
        return "its application is gone"
    return status.message[-400:] if status.status == "DEPLOY_FAILED" else None
