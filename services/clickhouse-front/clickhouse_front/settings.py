"""Configuration by environment variables. Every value is checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(Exception):
    """A variable is missing or wrong; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Settings:
    """How the server runs. Sizes are in bytes, times in seconds."""

    host: str
    port: int
    health_port: int
    tls_directory: Path
    users_directory: Path
    data_directory: Path
    database: str
    max_memory: int
    max_query_memory: int
    max_execution_seconds: int
    max_queries: int
    threads: int
    drain_seconds: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads CLICKHOUSE_*. Raises SettingsError."""
    mebibytes = _number(environment, "CLICKHOUSE_MAX_MEMORY_MIB", 512, 128, 1_048_576)
    per_query = _number(environment, "CLICKHOUSE_MAX_QUERY_MEMORY_MIB", mebibytes // 2, 32, mebibytes)
    return Settings(
        host=environment.get("CLICKHOUSE_HOST", "0.0.0.0"),
        port=_number(environment, "CLICKHOUSE_PORT", 8443, 0, 65535),
        health_port=_number(environment, "CLICKHOUSE_HEALTH_PORT", 8081, 0, 65535),
        tls_directory=_folder(environment, "CLICKHOUSE_TLS_DIR", "a folder with tls.crt and tls.key"),
        users_directory=_folder(
            environment, "CLICKHOUSE_USERS_DIR", "a folder with one folder per user: analytics and reader"
        ),
        data_directory=_folder(environment, "CLICKHOUSE_DATA_DIR", "the folder of the engine's data"),
        database=_name(environment, "CLICKHOUSE_DATABASE", "analytics"),
        max_memory=mebibytes * 2**20,
        max_query_memory=per_query * 2**20,
        max_execution_seconds=_number(environment, "CLICKHOUSE_MAX_EXECUTION_SECONDS", 60, 1, 3600),
        max_queries=_number(environment, "CLICKHOUSE_MAX_QUERIES", 16, 2, 200),
        threads=_number(environment, "CLICKHOUSE_THREADS", 2, 1, 64),
        drain_seconds=_number(environment, "CLICKHOUSE_DRAIN_SECONDS", 20, 1, 600),
    )


def _folder(environment: Mapping[str, str], name: str, what: str) -> Path:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; set it to {what}")
    path = Path(value)
    if not path.is_dir():
        raise SettingsError(f"{name}={value} is no folder; set it to {what}")
    return path.resolve()


def _name(environment: Mapping[str, str], name: str, default: str) -> str:
    value = environment.get(name, default)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value) or value in ("system", "default", "information_schema"):
        raise SettingsError(f"{name}={value} is not usable; set it to a name of a-z, 0-9 and _, not system or default")
    return value


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or not least <= int(value) <= most:
        raise SettingsError(f"{name}={value} is not usable; set it to a whole number from {least} to {most}")
    return int(value)
