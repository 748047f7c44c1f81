"""The whole pod under real Ray Serve, in namespaces of its own: Ray binds more than the loopback otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from tests.conftest import ROOT, Files

UNSHARE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _possible() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def seen(files: Files) -> Any:
    # A short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-")
    environment = {**files.environment(8000), "RAY_AUTH_TOKEN_PATH": str(files.ray_token), "RAY_TMPDIR": f"{folder}/r"}
    script = f"ip link set lo up && exec {sys.executable} tests/ray_drill.py"
    try:
        done = subprocess.run(  # noqa: S603
            [*UNSHARE, "sh", "-c", script],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
            stdout=subprocess.PIPE,
            timeout=300,
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


def test_the_pod_is_small(seen: dict[str, Any]) -> None:
    assert seen["resident_megabytes"] < 1024


def test_a_worker_joins_and_leaves_in_order(seen: dict[str, Any]) -> None:
    assert seen["worker_joined"] is True
    assert seen["worker_drained"] is True
    assert seen["worker_exit"] == 0


def test_a_node_with_another_token_is_refused(seen: dict[str, Any]) -> None:
    assert seen["stranger_exit"] not in (0, None)


def test_the_head_answers_to_the_end_and_exits_cleanly(seen: dict[str, Any]) -> None:
    assert seen["answer_after"] == TENANT
    assert seen["head_exit"] == 0
