"""Which promoted models are held at the same time, where there are more of them than may be."""

from __future__ import annotations

import time
from collections.abc import Callable

from somagent_slm.model_spec import ModelSpec


class Shelf:
    """Places for promoted models. Belongs to one event loop.

    As long as there is a free place, every model gets one. Then a model that was asked for takes the place of the one
    that nobody has asked for the longest, if that is `idle_seconds` or more: two tenants in turn must not make their
    models come and go with each request.
    """

    def __init__(self, places: int, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._places, self._idle_seconds, self._clock = places, idle_seconds, clock
        self._known: frozenset[str] = frozenset()
        self._held: tuple[str, ...] = ()
        self._asked: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Promoted models without a place."""
        return len(self._known) - len(self._held)

    @property
    def held(self) -> int:
        return len(self._held)

    def asked(self, model: str) -> None:
        """Somebody wants this model, whether it is held or not."""
        if model in self._known:
            self._asked[model] = self._clock()

    def choose(self, promoted: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        """Those that are to be held now."""
        self._known = frozenset(spec.name for spec in promoted)
        self._asked = {name: when for name, when in self._asked.items() if name in self._known}
        held = [name for name in self._held if name in self._known]
        for name in sorted(self._known.difference(held), key=lambda name: (-self._last(name), name)):
            if len(held) < self._places:
                held.append(name)
                continue
            oldest = min(held, key=self._last)
            if self._last(name) <= self._last(oldest) or self._clock() - self._last(oldest) < self._idle_seconds:
                break
            held[held.index(oldest)] = name
        self._held = tuple(held)
        return tuple(spec for spec in promoted if spec.name in self._held)

    def _last(self, name: str) -> float:
        return self._asked.get(name, float("-inf"))
