"""Configuration: environment variables in, one validated value out. No other module reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from somagent_slm.environment import SettingsError, Workloads, api_key_file_of, number_of, path_of, workloads_of
from somagent_slm.https import Listener

from somagent_embeddings.encoder import Precision


@dataclass(frozen=True)
class Settings:
    """What the worker runs with. `queue` is in texts, `deadline` in seconds, `body_limit` in bytes.

    Callers are admitted by workload identity in a cluster, or by the token in `api_key_file` outside of one.
    """

    model_path: Path
    model_name: str
    workloads: Workloads | None
    api_key_file: Path | None
    listener: Listener
    threads: int
    precision: Precision
    queue: int
    deadline: float
    body_limit: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `EMBEDDINGS_*`. Raises SettingsError on the first variable that can't be used."""
    workloads = workloads_of(environment, "EMBEDDINGS")
    return Settings(
        model_path=path_of(environment, "EMBEDDINGS_MODEL_DIR", "a sentence-transformers directory"),
        model_name=environment.get("EMBEDDINGS_MODEL", "all-minilm-l6-v2"),
        workloads=workloads,
        api_key_file=api_key_file_of(environment, workloads, "EMBEDDINGS"),
        listener=Listener(
            host=environment.get("EMBEDDINGS_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own; the policy admits peers
            port=number_of(environment, "EMBEDDINGS_PORT", 8443, 1, 65535),
            tls=path_of(environment, "EMBEDDINGS_TLS_DIR", "a directory with tls.crt and tls.key"),
            drain_seconds=number_of(environment, "EMBEDDINGS_DRAIN_SECONDS", 20, 0, 600),
        ),
        precision=_precision(environment.get("EMBEDDINGS_PRECISION", Precision.AUTO)),
        threads=number_of(environment, "EMBEDDINGS_THREADS", 1, 1, 256),
        queue=number_of(environment, "EMBEDDINGS_QUEUE", 4096, 1, 1_000_000),
        deadline=number_of(environment, "EMBEDDINGS_DEADLINE_MS", 10_000, 1, 600_000) / 1000,
        body_limit=number_of(environment, "EMBEDDINGS_BODY_LIMIT", 8_388_608, 1024, 2**30),
    )


def _precision(value: str) -> Precision:
    try:
        return Precision(value)
    except ValueError as error:
        raise SettingsError(f"EMBEDDINGS_PRECISION is {value!r}; use one of {', '.join(Precision)}") from error
