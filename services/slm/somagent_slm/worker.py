"""`python3 -m somagent_slm.worker`: joins the Ray head at RAY_HEAD_ADDRESS and gives it room for replicas."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from somagent_slm.process import log, on_stop
from somagent_slm.ray_node import join_head, prepare_ray
from somagent_slm.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from ray._private.node import Node

POLL_SECONDS = 1.0


def main() -> int:
    stop = threading.Event()
    try:
        # Replicas on this node read the same settings: better to fail here than in each of them.
        settings = read_settings()
        prepare_ray()
        node = join_head()
    except SettingsError as error:
        log("error", str(error))
        return 2
    on_stop(stop)
    log("info", "joined", head=node.gcs_address)
    while not stop.wait(POLL_SECONDS):
        if node.dead_processes():
            log("error", "the head or a process of this node is gone; restarting")
            return 1
    _drain(node, settings.drain_seconds)
    return 0


def _drain(node: Node, seconds: int) -> None:
    """Asks for the replicas here to be moved away and waits until Ray has let the node go, or the time is up."""
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    log("info", "draining", seconds=seconds)
    deadline = time.time() + seconds
    accepted, refusal = node.get_gcs_client().drain_node(
        node.node_id,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "the pod is being stopped",
        int(deadline * 1000),
    )
    if not accepted:
        log("warning", f"the head refused to drain this node: {refusal}")
        return
    while time.time() < deadline and not node.dead_processes():
        time.sleep(POLL_SECONDS / 4)


if __name__ == "__main__":
    sys.exit(main())
