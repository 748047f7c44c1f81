"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHORTEST_TOKEN = 32


class SettingsError(ValueError):
    """A setting is absent or wrong; the message names the variable, the value and the fix."""


@dataclass(frozen=True)
class Settings:
    """What the service runs with.

    `context` is the number of tokens of one conversation (0: what the model was trained for); `slots` is how many
    conversations are generated at once by one replica; `queue` is how many more may wait before callers get 429.
    """

    model_path: Path
    model_name: str
    api_key_file: Path
    tls_directory: Path
    host: str
    port: int
    replicas: int
    slots: int
    queue: int
    threads: int
    context: int
    body_limit: int
    drain_seconds: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `SLM_*`. Raises SettingsError on the first variable that can't be used."""
    return Settings(
        model_path=_path(environment, "SLM_MODEL_PATH", "a GGUF file or a model directory"),
        model_name=environment.get("SLM_MODEL_NAME", "soma-tiny"),
        api_key_file=_path(environment, "SLM_API_KEY_FILE", "a file that holds the bearer token"),
        tls_directory=_path(environment, "SLM_TLS_DIR", "a directory with tls.crt and tls.key"),
        host=environment.get("SLM_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own addresses; the policy admits peers
        port=_number(environment, "SLM_PORT", 8000, 1, 65535),
        replicas=_number(environment, "SLM_REPLICAS", 1, 1, 64),
        slots=_number(environment, "SLM_SLOTS", 4, 1, 64),
        queue=_number(environment, "SLM_QUEUE", 64, 0, 10_000),
        threads=_number(environment, "SLM_THREADS", 1, 1, 256),
        context=_number(environment, "SLM_CONTEXT", 0, 0, 1_048_576),
        body_limit=_number(environment, "SLM_BODY_LIMIT", 262_144, 1024, 67_108_864),
        drain_seconds=_number(environment, "SLM_DRAIN_SECONDS", 20, 0, 600),
    )


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
