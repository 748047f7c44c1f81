"""Ray's own environment: set before Ray is imported, only where the pod has not decided."""

from __future__ import annotations

import os

from somagent_slm.settings import SettingsError

_DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GCS_SERVER_PORT": "6379",
    # A pod's /dev/shm is 64 MB, less than Ray's smallest store; nothing large passes through it here.
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "OMP_NUM_THREADS": "1",
    "HOME": "/tmp",
}


def prepare_ray() -> None:
    """Raises SettingsError when the cluster would run without a token."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] != "token":
        raise SettingsError(f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} leaves Ray open to its network; set it to token")
    if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        raise SettingsError("no Ray token; set RAY_AUTH_TOKEN_PATH to a file that holds one")
