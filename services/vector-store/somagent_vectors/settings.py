"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHORTEST_KEY = 32


class SettingsError(ValueError):
    """A setting is absent or wrong; the message names the variable, the value and the fix."""


@dataclass(frozen=True)
class Settings:
    """What the server runs with. Sizes are bytes; `requests` is how many are answered at once before callers get 429."""

    data: Path
    tls: Path
    key_file: Path
    reader_key_file: Path | None
    host: str
    port: int
    body_limit: int
    snapshot_limit: int
    requests: int
    drain_seconds: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `VECTOR_STORE_*`. Raises SettingsError on the first variable that can't be used."""
    reader = environment.get("VECTOR_STORE_READ_ONLY_API_KEY_FILE", "")
    return Settings(
        data=_path(environment, "VECTOR_STORE_DATA", "a folder on a volume"),
        tls=_path(environment, "VECTOR_STORE_TLS_DIR", "a folder with tls.crt and tls.key"),
        key_file=_path(environment, "VECTOR_STORE_API_KEY_FILE", "a file that holds the key"),
        reader_key_file=_path(environment, "VECTOR_STORE_READ_ONLY_API_KEY_FILE", "a file") if reader else None,
        host=environment.get("VECTOR_STORE_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own addresses; the policy admits peers
        port=_number(environment, "VECTOR_STORE_PORT", 6333, 1, 65535),
        body_limit=_number(environment, "VECTOR_STORE_BODY_LIMIT", 33_554_432, 1024, 2**30),
        snapshot_limit=_number(environment, "VECTOR_STORE_SNAPSHOT_LIMIT", 2**31, 1024, 2**40),
        requests=_number(environment, "VECTOR_STORE_REQUESTS", 64, 1, 10_000),
        drain_seconds=_number(environment, "VECTOR_STORE_DRAIN_SECONDS", 20, 0, 600),
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
