"""Starts Ray's processes on this pod, and only those that are needed: no monitor, no log forwarder, no dashboard."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from somagent_slm.settings import SettingsError

if TYPE_CHECKING:
    from ray._private.node import Node

_DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Logs of every process go to this pod's standard error instead of files that a forwarder would have to read.
    "RAY_LOG_TO_STDERR": "1",
    "RAY_BACKEND_LOG_LEVEL": "warning",
    # Without an API server Ray's agent logs one error a second, for ever; Serve has a logger of its own.
    "RAY_LOGGER_LEVEL": "critical",
    # A pod's /dev/shm is 64 MB, less than Ray's smallest store; nothing large passes through it here.
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "OMP_NUM_THREADS": "1",
    "HOME": "/tmp",
}
_PORT = 6379
_STORE_BYTES = 80 * 1024 * 1024


def prepare_ray() -> None:
    """Sets Ray's environment where the pod has not; must come before Ray is imported.

    Raises SettingsError when the cluster would run without a token.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    mode = os.environ["RAY_AUTH_MODE"]
    if mode != "token":
        raise SettingsError(f"RAY_AUTH_MODE={mode} leaves Ray open to whoever reaches it; set it to token")
    if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        raise SettingsError("no Ray token; set RAY_AUTH_TOKEN_PATH to a file that holds one")


def start_head() -> Node:
    """Starts the head's processes as children of this one; workers join its `gcs_address` (host:port)."""
    return _start(head=True, gcs_server_port=int(os.environ.get("RAY_PORT", _PORT)))


def join_head() -> Node:
    """Starts a worker node's processes and joins RAY_HEAD_ADDRESS. Raises SettingsError when that can't be used."""
    host, _, port = os.environ.get("RAY_HEAD_ADDRESS", "").rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsError(f"RAY_HEAD_ADDRESS={host}:{port} is not usable; set it to host:port of the Ray head")
    try:
        # Ray wants a number for the head's address.
        numeric = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    except OSError as error:
        raise SettingsError(f"RAY_HEAD_ADDRESS={host}:{port} is not in the DNS ({error}); is the head up?") from error
    return _start(head=False, gcs_address=f"{numeric}:{port}")


def _start(*, head: bool, **parameters: Any) -> Node:
    # `ray start` can't leave out the API server and the client server: 170 MB and two open ports. So this does what
    # that command does, through the class behind it. The Ray version is pinned and the tests start both kinds of node.
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class QuietNode(Node):
        def start_api_server(self, **_options: object) -> None:
            """Only `serve deploy` and `ray job` need it, which this cluster does not offer."""

    settings = RayParams(
        node_ip_address=os.environ.get("POD_IP", "127.0.0.1"),
        num_cpus=int(os.environ.get("RAY_NODE_CPUS", "2")),
        num_gpus=0,
        object_store_memory=_STORE_BYTES,
        temp_dir=os.environ.get("RAY_TMPDIR", "/tmp/ray"),  # noqa: S108 - an emptyDir of the pod
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        **parameters,
    )
    return QuietNode(settings, head=head, shutdown_at_exit=True, spawn_reaper=False)
