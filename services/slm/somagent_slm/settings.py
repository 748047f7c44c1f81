"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from somagent_slm.environment import SHORTEST_TOKEN, Workloads, api_key_file_of, number_of, path_of, url_of, workloads_of
from somagent_slm.model_spec import ModelSpec, SettingsError, parse_models

__all__ = ["SHORTEST_TOKEN", "PromotedSettings", "Settings", "SettingsError", "Workloads", "read_models", "read_settings"]


@dataclass(frozen=True)
class PromotedSettings:
    """Where models lie that training has promoted: the bucket at `url`, a folder with `username` and `password` for it,
    its authority, the public half of the key that signs lineages and promotions, and how often to look (seconds).

    At most `places` are held at the same time; one that nobody has asked for in `idle_seconds` may have to go."""

    url: str
    credentials_directory: Path
    authority: Path
    key_file: Path
    poll_seconds: float
    places: int
    idle_seconds: float


@dataclass(frozen=True)
class Settings:
    """What the service runs with.

    Callers are admitted by workload identity (`workloads`) in a cluster, or by the token in `api_key_file` outside of
    one: one of the two is set, never both. `models` are those of the start; a `models_file` is read again when it changes. `promoted`
    models stand in for the first one, each for its tenant.
    `queue` and `batch_queue` are how many requests of a lane may wait for each model, `queue_deadline` and
    `batch_deadline` how long (seconds) unless they say so themselves.
    """

    models: tuple[ModelSpec, ...]
    models_file: Path | None
    promoted: PromotedSettings | None
    api_key_file: Path | None
    workloads: Workloads | None
    tls_directory: Path
    host: str
    port: int
    channel_port: int
    queue: int
    batch_queue: int
    queue_deadline: float
    batch_deadline: float
    body_limit: int
    drain_seconds: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `SLM_*`. Raises SettingsError on the first variable that can't be used."""
    workloads = workloads_of(environment, "SLM")
    models_file = environment.get("SLM_MODELS_FILE")
    return Settings(
        models=_models(environment),
        models_file=Path(models_file) if models_file else None,
        promoted=_promoted(environment),
        api_key_file=api_key_file_of(environment, workloads, "SLM"),
        workloads=workloads,
        tls_directory=path_of(environment, "SLM_TLS_DIR", "a directory with tls.crt and tls.key"),
        host=environment.get("SLM_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own addresses; the policy admits peers
        port=number_of(environment, "SLM_PORT", 8000, 1, 65535),
        channel_port=number_of(environment, "SLM_CHANNEL_PORT", 8001, 1, 65535),
        queue=number_of(environment, "SLM_QUEUE", 64, 0, 10_000),
        batch_queue=number_of(environment, "SLM_BATCH_QUEUE", 256, 0, 100_000),
        queue_deadline=number_of(environment, "SLM_QUEUE_DEADLINE_MS", 10_000, 1, 600_000) / 1000,
        batch_deadline=number_of(environment, "SLM_BATCH_DEADLINE_MS", 60_000, 1, 3_600_000) / 1000,
        body_limit=number_of(environment, "SLM_BODY_LIMIT", 262_144, 1024, 67_108_864),
        drain_seconds=number_of(environment, "SLM_DRAIN_SECONDS", 20, 0, 600),
    )


def read_models(path: Path) -> tuple[ModelSpec, ...]:
    """The models of a models file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"SLM_MODELS_FILE={path} can't be read ({error.strerror}); put a list of models there") from error
    return parse_models(text, str(path))


def _promoted(environment: Mapping[str, str]) -> PromotedSettings | None:
    if not environment.get("SLM_PROMOTED_URL"):
        return None
    return PromotedSettings(
        url=url_of(environment, "SLM_PROMOTED_URL", "the https address of the bucket of models"),
        credentials_directory=path_of(environment, "SLM_PROMOTED_CREDENTIALS_DIR", "a directory with username and password"),
        authority=path_of(environment, "SLM_PROMOTED_CA_FILE", "the PEM file of the authority of the object store"),
        key_file=path_of(environment, "SLM_PROMOTED_KEY_FILE", "the public key of training's lineages as PEM"),
        poll_seconds=number_of(environment, "SLM_PROMOTED_POLL_MS", 5000, 100, 3_600_000) / 1000,
        places=number_of(environment, "SLM_PROMOTED_PLACES", 4, 1, 1024),
        idle_seconds=number_of(environment, "SLM_PROMOTED_IDLE_MS", 60_000, 0, 86_400_000) / 1000,
    )


def _models(environment: Mapping[str, str]) -> tuple[ModelSpec, ...]:
    given = [name for name in ("SLM_MODELS", "SLM_MODELS_FILE", "SLM_MODEL_PATH") if environment.get(name)]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} are both set; each says which models there are: leave one out")
    if environment.get("SLM_MODELS_FILE"):
        return read_models(Path(environment["SLM_MODELS_FILE"]))
    if environment.get("SLM_MODELS"):
        return parse_models(environment["SLM_MODELS"], "SLM_MODELS")
    # One model needs no list.
    spec = {
        "name": environment.get("SLM_MODEL_NAME", "soma-tiny"),
        "path": str(path_of(environment, "SLM_MODEL_PATH", "a GGUF file or a model directory")),
        "minReplicas": number_of(environment, "SLM_REPLICAS", 1, 1, 64),
        "maxReplicas": number_of(environment, "SLM_REPLICAS", 1, 1, 64),
        "slots": number_of(environment, "SLM_SLOTS", 4, 1, 64),
        "threads": number_of(environment, "SLM_THREADS", 1, 1, 256),
        "context": number_of(environment, "SLM_CONTEXT", 0, 0, 1_048_576),
    }
    return parse_models(json.dumps([spec]), "SLM_MODEL_PATH")
