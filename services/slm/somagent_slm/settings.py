"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from somagent_slm.model_spec import ModelSpec, SettingsError, parse_models

__all__ = ["SHORTEST_TOKEN", "Settings", "SettingsError", "Workloads", "read_models", "read_settings"]
SHORTEST_TOKEN = 32


@dataclass(frozen=True)
class Workloads:
    """Which pods of the cluster are admitted: those with a token for `audience` whose subject is among `callers`.

    `kubernetes_directory` has this pod's own `token` for the API server at `kubernetes_url`, and its `ca.crt`.
    """

    audience: str
    callers: frozenset[str]
    kubernetes_url: str
    kubernetes_directory: Path


@dataclass(frozen=True)
class Settings:
    """What the service runs with.

    Callers are admitted by workload identity (`workloads`) in a cluster, or by the token in `api_key_file` outside of
    one: one of the two is set, never both. `models` are those of the start; a `models_file` is read again when it changes.
    `queue` and `batch_queue` are how many requests of a lane may wait for each model, `queue_deadline` and
    `batch_deadline` how long (seconds) unless they say so themselves.
    """

    models: tuple[ModelSpec, ...]
    models_file: Path | None
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
    workloads = _workloads(environment)
    models_file = environment.get("SLM_MODELS_FILE")
    return Settings(
        models=_models(environment),
        models_file=Path(models_file) if models_file else None,
        api_key_file=_api_key_file(environment, workloads),
        workloads=workloads,
        tls_directory=_path(environment, "SLM_TLS_DIR", "a directory with tls.crt and tls.key"),
        host=environment.get("SLM_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own addresses; the policy admits peers
        port=_number(environment, "SLM_PORT", 8000, 1, 65535),
        channel_port=_number(environment, "SLM_CHANNEL_PORT", 8001, 1, 65535),
        queue=_number(environment, "SLM_QUEUE", 64, 0, 10_000),
        batch_queue=_number(environment, "SLM_BATCH_QUEUE", 256, 0, 100_000),
        queue_deadline=_number(environment, "SLM_QUEUE_DEADLINE_MS", 10_000, 1, 600_000) / 1000,
        batch_deadline=_number(environment, "SLM_BATCH_DEADLINE_MS", 60_000, 1, 3_600_000) / 1000,
        body_limit=_number(environment, "SLM_BODY_LIMIT", 262_144, 1024, 67_108_864),
        drain_seconds=_number(environment, "SLM_DRAIN_SECONDS", 20, 0, 600),
    )


def read_models(path: Path) -> tuple[ModelSpec, ...]:
    """The models of a models file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"SLM_MODELS_FILE={path} can't be read ({error.strerror}); put a list of models there") from error
    return parse_models(text, str(path))


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
        "path": str(_path(environment, "SLM_MODEL_PATH", "a GGUF file or a model directory")),
        "minReplicas": _number(environment, "SLM_REPLICAS", 1, 1, 64),
        "maxReplicas": _number(environment, "SLM_REPLICAS", 1, 1, 64),
        "slots": _number(environment, "SLM_SLOTS", 4, 1, 64),
        "threads": _number(environment, "SLM_THREADS", 1, 1, 256),
        "context": _number(environment, "SLM_CONTEXT", 0, 0, 1_048_576),
    }
    return parse_models(json.dumps([spec]), "SLM_MODEL_PATH")


def _workloads(environment: Mapping[str, str]) -> Workloads | None:
    audience, callers = environment.get("SLM_WORKLOAD_AUDIENCE", ""), environment.get("SLM_WORKLOAD_CALLERS", "")
    if not audience and not callers:
        return None
    for name, value in (("SLM_WORKLOAD_AUDIENCE", audience), ("SLM_WORKLOAD_CALLERS", callers)):
        if not value:
            raise SettingsError(f"{name} is not set; workload identity needs both an audience and a list of callers")
    subjects = frozenset(caller.strip() for caller in callers.split(","))
    for subject in subjects:
        if not re.fullmatch(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+", subject):
            raise SettingsError(
                f"SLM_WORKLOAD_CALLERS={callers} is not usable; set it to system:serviceaccount:<namespace>:<name>,…"
            )
    url = environment.get("SLM_KUBERNETES_URL", "https://kubernetes.default.svc").rstrip("/")
    if not url.startswith("https://"):
        raise SettingsError(f"SLM_KUBERNETES_URL={url} is not usable; set it to the https address of the API server")
    directory = {"SLM_KUBERNETES_DIR": "/var/run/secrets/somagent/kubernetes", **environment}
    return Workloads(
        audience=audience,
        callers=subjects,
        kubernetes_url=url,
        kubernetes_directory=_path(directory, "SLM_KUBERNETES_DIR", "a directory with token and ca.crt"),
    )


def _api_key_file(environment: Mapping[str, str], workloads: Workloads | None) -> Path | None:
    if workloads is None:
        return _path(environment, "SLM_API_KEY_FILE", "a file that holds the bearer token")
    if environment.get("SLM_API_KEY_FILE"):
        raise SettingsError("SLM_API_KEY_FILE and SLM_WORKLOAD_AUDIENCE are both set; leave the key out: pods need none")
    return None


def _path(environment: Mapping[str, str], name: str, what: str) -> Path:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; set it to {what}")
    path = Path(value)
    if not path.exists():
        raise SettingsError(f"{name}={value} does not exist; set it to {what}")
    return path


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or not least <= int(value) <= most:
        raise SettingsError(f"{name}={value} is not usable; set it to a whole number from {least} to {most}")
    return int(value)
