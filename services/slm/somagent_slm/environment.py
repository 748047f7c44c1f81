"""Environment variables that every server of ours in Python reads alike: who may call, paths, numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHORTEST_TOKEN = 32


class SettingsError(ValueError):
    """A setting is absent or wrong; the message names the variable, the value and the fix."""


@dataclass(frozen=True)
class Workloads:
    """Which pods of the cluster are admitted: those with a token for `audience` whose subject is among `callers`.

    `kubernetes_directory` has this pod's own `token` for the API server at `kubernetes_url`, and its `ca.crt`.
    """

    audience: str
    callers: frozenset[str]
    kubernetes_url: str
    kubernetes_directory: Path


def workloads_of(environment: Mapping[str, str], prefix: str) -> Workloads | None:
    """Reads `<prefix>_WORKLOAD_*` and `<prefix>_KUBERNETES_*`; None outside of a cluster. Raises SettingsError."""
    names = (f"{prefix}_WORKLOAD_AUDIENCE", f"{prefix}_WORKLOAD_CALLERS")
    audience, callers = (environment.get(name, "") for name in names)
    if not audience and not callers:
        return None
    for name, value in zip(names, (audience, callers), strict=True):
        if not value:
            raise SettingsError(f"{name} is not set; workload identity needs both an audience and a list of callers")
    subjects = frozenset(caller.strip() for caller in callers.split(","))
    for subject in subjects:
        if not re.fullmatch(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+", subject):
            raise SettingsError(
                f"{prefix}_WORKLOAD_CALLERS={callers} is not usable; set it to "
                "system:serviceaccount:<namespace>:<name>,…"
            )
    address = {f"{prefix}_KUBERNETES_URL": "https://kubernetes.default.svc", **environment}
    url = url_of(address, f"{prefix}_KUBERNETES_URL", "the https address of the API server")
    directory = {f"{prefix}_KUBERNETES_DIR": "/var/run/secrets/somagent/kubernetes", **environment}
    return Workloads(
        audience=audience,
        callers=subjects,
        kubernetes_url=url,
        kubernetes_directory=path_of(directory, f"{prefix}_KUBERNETES_DIR", "a directory with token and ca.crt"),
    )


def api_key_file_of(environment: Mapping[str, str], workloads: Workloads | None, prefix: str) -> Path | None:
    """Where the bearer token lies that is asked for outside of a cluster. Raises SettingsError."""
    if workloads is None:
        return path_of(environment, f"{prefix}_API_KEY_FILE", "a file that holds the bearer token")
    if environment.get(f"{prefix}_API_KEY_FILE"):
        names = f"{prefix}_API_KEY_FILE and {prefix}_WORKLOAD_AUDIENCE"
        raise SettingsError(f"{names} are both set; leave the key out: pods need none")
    return None


def url_of(environment: Mapping[str, str], name: str, what: str) -> str:
    """An https address without a slash at its end. Raises SettingsError."""
    url = environment.get(name, "").rstrip("/")
    if not url.startswith("https://"):
        raise SettingsError(f"{name}={url} is not usable; set it to {what}")
    return url


def path_of(environment: Mapping[str, str], name: str, what: str) -> Path:
    """A path that exists. Raises SettingsError."""
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; set it to {what}")
    path = Path(value)
    if not path.exists():
        raise SettingsError(f"{name}={value} does not exist; set it to {what}")
    return path


def number_of(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number within its bounds. Raises SettingsError."""
    value = environment.get(name, str(default))
    if not value.isdecimal() or not least <= int(value) <= most:
        raise SettingsError(f"{name}={value} is not usable; set it to a whole number from {least} to {most}")
    return int(value)
