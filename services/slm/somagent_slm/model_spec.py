"""The models that are served side by side: a list in, validated values out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from somagent_slm.environment import SettingsError


class ModelSpec(BaseModel):
    """One model: the name that requests ask for, its file, and how much of it there is.

    A name with `@<tenant>` is served to that tenant only, in place of the model of the same name. `sha256` is of a file
    that a node without it takes from the store of promoted models.

    `slots` is how many conversations one replica generates at once; `context` the tokens of each (0: what the model was
    trained for). Between `min_replicas` and `max_replicas` Ray keeps as many as give each `target_ongoing` requests,
    waiting ones included; it waits the two delays (seconds) before it follows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: str = Field(min_length=1, max_length=127, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(@[a-z0-9][a-z0-9-]{0,62})?$")
    path: Path
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    quantize: Literal["q8_0"] | None = None
    slots: int = Field(default=4, ge=1, le=64)
    threads: int = Field(default=1, ge=1, le=256)
    context: int = Field(default=0, ge=0, le=1_048_576)
    min_replicas: int = Field(default=1, ge=1, le=64)
    max_replicas: int = Field(default=1, ge=1, le=64)
    target_ongoing: float = Field(default=3, gt=0, le=1024)
    upscale_delay: float = Field(default=3, ge=0, le=3600)
    downscale_delay: float = Field(default=60, ge=0, le=86_400)
    cpus: float = Field(default=0.5, ge=0, le=64)

    @model_validator(mode="after")
    def _in_order(self) -> ModelSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} is above maxReplicas {self.max_replicas}; swap them")
        return self

    @property
    def version(self) -> str:
        """Changes with the spec and with the files at its path (name, size, time of change)."""
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
        described = json.dumps([self.model_dump(mode="json"), stamps])
        return hashlib.sha256(described.encode()).hexdigest()[:10]


def parse_models(text: str, origin: str) -> tuple[ModelSpec, ...]:
    """The models of a JSON list. Raises SettingsError naming `origin`, the field and the fix."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{origin} is not JSON ({error}); write a list of models") from error
    if not isinstance(found, list) or not found:
        raise SettingsError(f"{origin} is not a list with at least one model; write [{{\"name\": ..., \"path\": ...}}]")
    specs = tuple(_parse_model(entry, f"{origin}[{index}]") for index, entry in enumerate(found))
    names = [spec.name for spec in specs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise SettingsError(f"{origin} has the name {repeated} twice; requests ask for a model by its name: rename one")
    return specs


def _parse_model(entry: Any, origin: str) -> ModelSpec:
    try:
        spec = ModelSpec.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{origin}.{field}: {first['msg']} (got {str(first['input'])[:80]})") from error
    if not spec.path.exists():
        raise SettingsError(f"{origin}.path {spec.path} does not exist; set it to a GGUF file or a model directory")
    return spec
