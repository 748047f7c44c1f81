"""The models that are served here and who generates for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from somagent_slm.backend import Backend
from somagent_slm.pool import Lane, Limits, Pool
from somagent_slm.settings import Settings

DEMAND_SECONDS = 0.5


class Hub:
    """A pool for each model. Belongs to one event loop.

    A replica joins with the version of its model; it gets work once that version is the current one.
    """

    def __init__(self, settings: Settings, asked: Callable[[str], None] = lambda _: None) -> None:
        """`asked` hears the name of the tenant's own model at each request that it would answer."""
        self._asked = asked
        self._limits = {
            Lane.INTERACTIVE: Limits(settings.queue, settings.queue_deadline),
            Lane.BATCH: Limits(settings.batch_queue, settings.batch_deadline),
        }
        self._pools = {spec.name: Pool(spec.name, self._limits) for spec in settings.models}
        self._declared = frozenset(self._pools)
        self._early: dict[str, list[Backend]] = {}
        self.warm = False

    def names(self, tenant: str | None = None) -> list[str]:
        """The models that are offered to the tenant: those of everybody and its own."""
        return [name for name in self._pools if name.partition("@")[2] in ("", tenant)]

    def serving(self, model: str, tenant: str | None) -> Pool:
        """Who answers the tenant when it asks for the model: its own one once that is warm, else everybody's."""
        name = model if "@" in model else f"{model}@{tenant}"
        self._asked(name)
        own = self._pools.get(name)
        return self._pools[model] if own is None or own.current is None else own

    def pools(self) -> list[Pool]:
        return list(self._pools.values())

    def pool(self, model: str) -> Pool:
        """The pool of the model; a new model gets one."""
        if model not in self._pools:
            pool = self._pools[model] = Pool(model, self._limits)
            for backend in self._early.pop(model, []):
                pool.join(backend)
        return self._pools[model]

    def forget(self, model: str) -> None:
        """The model is not served any more."""
        self._pools.pop(model, None)

    def join(self, backend: Backend) -> None:
        if backend.model in self._pools:
            self._pools[backend.model].join(backend)
        else:
            # A restarted router's replicas may be faster than its list of promoted models, which alone offers a model.
            self._early.setdefault(backend.model, []).append(backend)

    def leave(self, backend: Backend) -> None:
        early = self._early.get(backend.model, [])
        if backend in early:
            early.remove(backend)
        if backend.model in self._pools:
            self._pools[backend.model].leave(backend)

    async def healthy(self) -> bool:
        """Whether every model of the start has been warmed, and one at least gave a token in the last seconds."""
        started = (pool for name, pool in self._pools.items() if name in self._declared)
        self.warm = self.warm or all(pool.backends() for pool in started)
        if not self.warm:
            return False
        backends = [backend for pool in self.pools() for backend in pool.backends()]
        answers = await asyncio.gather(*(backend.ask("health") for backend in backends), return_exceptions=True)
        return any(isinstance(answer, dict) and answer["healthy"] == 1 for answer in answers)

    async def tell_demand(self) -> None:
        """Never ends: Ray's autoscaler hears what is asked for through the replicas."""
        while True:
            await asyncio.sleep(DEMAND_SECONDS)
            for pool in self.pools():
                pool.tell_demand()
