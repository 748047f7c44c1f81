"""`python -m finetune.submit FOLDER`: a Ray cluster of this process, and in it the job, by Ray's job submission API.

The cluster has a token of its own that nobody else is told, and ends with this process. Exit: 0 the job succeeded, 1 it
failed, 3 it was stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from finetune.lines import log

POLL_SECONDS = 0.5
STOP_SECONDS = 15.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder.resolve()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    scratch = tempfile.mkdtemp(prefix="ray-")
    _prepare(Path(scratch))
    # Imported here: Ray reads its environment when it is imported.
    import ray

    context = ray.init(
        num_cpus=1,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        _node_ip_address="127.0.0.1",
        _temp_dir=f"{scratch}/r",
        object_store_memory=80 * 1024 * 1024,
        log_to_driver=False,
        logging_level="warning",
    )
    # Ray installs a handler of its own, which would end this process without stopping the job.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        return _follow(f"http://{context.dashboard_url}", folder, stop)
    finally:
        ray.shutdown()


def _prepare(scratch: Path) -> None:
    token = scratch / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_urlsafe(32))
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        "RAY_enable_metrics_collection": "0",
    }


def _follow(address: str, folder: Path, stop: threading.Event) -> int:
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(address)
    job = client.submit_job(
        entrypoint=f"exec {sys.executable} -m finetune.job {folder}",
        entrypoint_num_cpus=1,
        metadata={"run": folder.name},
    )
    log("submitted", job=job)
    seen = 0
    deadline: float | None = None
    while True:
        status = client.get_job_status(job)
        lines = client.get_job_logs(job)
        sys.stdout.write(lines[seen:])
        sys.stdout.flush()
        seen = len(lines)
        if status.is_terminal():
            log("ended", job=job, status=str(status.value))
            return {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: 3}.get(status, 1)
        if stop.is_set() and deadline is None:
            client.stop_job(job)
            deadline = time.monotonic() + STOP_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            log("the job did not stop in time; it ends with its cluster", job=job)
            return 3
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
