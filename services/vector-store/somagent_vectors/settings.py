"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from somagent_slm.environment import number_of, path_of
from somagent_slm.https import Listener


@dataclass(frozen=True)
class Settings:
    """What the server runs with. Sizes are bytes; more than `requests` at once get 429."""

    data: Path
    key_file: Path
    reader_key_file: Path | None
    listener: Listener
    body_limit: int
    snapshot_limit: int
    requests: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `VECTOR_STORE_*`. Raises SettingsError on the first variable that can't be used."""
    reader = environment.get("VECTOR_STORE_READ_ONLY_API_KEY_FILE", "")
    return Settings(
        data=path_of(environment, "VECTOR_STORE_DATA", "a folder on a volume"),
        key_file=path_of(environment, "VECTOR_STORE_API_KEY_FILE", "a file that holds the key"),
        reader_key_file=path_of(environment, "VECTOR_STORE_READ_ONLY_API_KEY_FILE", "a file") if reader else None,
        listener=Listener(
            host=environment.get("VECTOR_STORE_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own; the policy admits peers
            port=number_of(environment, "VECTOR_STORE_PORT", 6333, 1, 65535),
            tls=path_of(environment, "VECTOR_STORE_TLS_DIR", "a folder with tls.crt and tls.key"),
            drain_seconds=number_of(environment, "VECTOR_STORE_DRAIN_SECONDS", 20, 0, 600),
        ),
        body_limit=number_of(environment, "VECTOR_STORE_BODY_LIMIT", 33_554_432, 1024, 2**30),
        snapshot_limit=number_of(environment, "VECTOR_STORE_SNAPSHOT_LIMIT", 2**31, 1024, 2**40),
        requests=number_of(environment, "VECTOR_STORE_REQUESTS", 64, 1, 10_000),
    )
