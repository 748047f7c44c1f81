"""The whole pod under real Ray Serve, in namespaces of its own: Ray binds more than the loopback otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Files

UNSHARE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _possible() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


def declared(files: Files) -> list[dict[str, Any]]:
    """Two models; one may have two replicas."""
    small = {"path": str(files.model), "slots": 2}
    scaled = {"maxReplicas": 2, "targetOngoing": 2, "upscaleDelay": 1, "downscaleDelay": 3}
    return [{"name": "soma-tiny", **small, **scaled}, {"name": "soma-tiny-q8", "quantize": "q8_0", **small}]


@pytest.fixture(scope="module")
def seen(files: Files) -> Any:
    # A short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-")
    models = Path(folder) / "models.json"
    models.write_text(json.dumps(declared(files)))
    environment = {**files.environment(8000), "RAY_AUTH_TOKEN_PATH": str(files.ray_token), "RAY_TMPDIR": f"{folder}/r"}
    del environment["SLM_MODEL_PATH"]
    environment["SLM_MODELS_FILE"] = str(models)
    # On a slow machine a slot may be long in coming; what is judged here is that nothing is lost.
    environment |= {"SLM_QUEUE": "64", "SLM_QUEUE_DEADLINE_MS": "60000"}
    script = f"ip link set lo up && exec {sys.executable} tests/ray_drill.py"
    try:
        done = subprocess.run(  # noqa: S603
            [*UNSHARE, "sh", "-c", script],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
            stdout=subprocess.PIPE,
            timeout=900,
            check=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.skipif(not _possible(), reason="unshare is not allowed here; run as root on Linux")

TENANT = (
    "A tenant is a customer of the platform. The tenant comes from the verified token and from nowhere else, "
    "so a request can never name another tenant."
)


def test_the_answer_comes_through_serve(seen: dict[str, Any]) -> None:
    assert seen["answer"] == TENANT
    assert seen["refused"] == "401"


def test_two_models_are_served_side_by_side(seen: dict[str, Any]) -> None:
    assert seen["answers"] == {"soma-tiny": TENANT, "soma-tiny-q8": TENANT}


def test_the_pod_is_small(seen: dict[str, Any]) -> None:
    """With two models, each in a process of its own."""
    assert seen["resident_megabytes"] < 1152


def test_replicas_come_and_go_with_the_requests(seen: dict[str, Any]) -> None:
    scaling = seen["scaling"]
    assert (scaling["failed"], scaling["answering"]) == ([], 2)
    assert scaling["answers"] > 20
    assert scaling["up"] is not None
    assert scaling["down"] is not None


def test_a_changed_model_replaces_the_old_one_without_a_failed_request(seen: dict[str, Any]) -> None:
    change = seen["change"]
    assert (change["failed"], change["another_replica"], change["slots"]) == ([], True, 3)
    assert change["answers"] > 20
    assert change["seconds"] is not None
    # The old version's process has ended.
    assert change["gone"] is not None


def test_what_is_no_model_leaves_the_old_one_in_place(seen: dict[str, Any]) -> None:
    refusals = seen["refusals"]
    assert refusals["refused"] is not None
    assert (refusals["answer"], refusals["answer_after"]) == (TENANT, TENANT)


def test_a_replica_killed_while_streaming_ends_the_stream_with_an_error_and_comes_back(seen: dict[str, Any]) -> None:
    kill = seen["kill"]
    error = json.loads(kill["last"])["error"]
    assert (error["type"], error["code"]) == ("server_error", "replica_lost")
    assert "ask again" in error["message"]
    assert kill["tokens"] >= 9
    assert kill["back"] is not None
    assert kill["another"] is True
    assert kill["answer"] == TENANT


def test_an_answer_of_which_nothing_was_told_starts_over(seen: dict[str, Any]) -> None:
    assert seen["kill"]["whole"] == "length"


def test_a_worker_joins_and_leaves_in_order(seen: dict[str, Any]) -> None:
    assert seen["worker_joined"] is True
    assert seen["worker_drained"] is True
    assert seen["worker_exit"] == 0


def test_a_node_with_another_token_is_refused(seen: dict[str, Any]) -> None:
    assert seen["stranger_exit"] not in (0, None)


def test_the_head_answers_to_the_end_and_exits_cleanly(seen: dict[str, Any]) -> None:
    assert seen["answer_after"] == TENANT
    assert seen["head_exit"] == 0
