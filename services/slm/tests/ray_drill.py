"""Runs inside a network and process namespace of its own, as a pod would: a head, a worker, questions, an orderly end.

Prints what was seen as one JSON object; test_ray.py judges it.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BASE = f"https://127.0.0.1:{os.environ['SLM_PORT']}"
CONTEXT = ssl.create_default_context(cafile=os.path.join(os.environ["SLM_TLS_DIR"], "tls.crt"))
TOKEN = open(os.environ["SLM_API_KEY_FILE"]).read().strip()


def main() -> None:
    seen: dict[str, object] = {}
    head = start_head()
    seen["ready_seconds"] = wait_healthy(head)
    seen["answer"] = ask(TOKEN)
    seen["refused"] = ask("wrong" * 8)
    seen["resident_megabytes"] = resident_megabytes()
    worker, log = start_worker()
    seen["worker_joined"] = wait_for(log, '"joined"')
    seen["worker_exit"] = stop(worker)
    seen["worker_drained"] = '"draining"' in log.read_text()
    stranger, _ = start_worker(RAY_AUTH_TOKEN_PATH=os.environ["SLM_API_KEY_FILE"])
    try:
        seen["stranger_exit"] = stranger.wait(timeout=40)
    except subprocess.TimeoutExpired:
        seen["stranger_exit"] = None
        stop(stranger)
    seen["answer_after"] = ask(TOKEN)
    seen["head_exit"] = stop(head)
    print(json.dumps(seen))


def start_head() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "somagent_slm.head"], stdout=sys.stderr)  # noqa: S603


def start_worker(**environment: str) -> tuple[subprocess.Popen[bytes], Path]:
    """A worker of this pod's head, and the file with what it says."""
    folder = Path(tempfile.mkdtemp(prefix="w-"))
    log = folder / "log"
    variables = {**os.environ, "RAY_HEAD_ADDRESS": "localhost:6379", "RAY_TMPDIR": str(folder), **environment}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "somagent_slm.worker"]
        return subprocess.Popen(command, env=variables, stdout=file, stderr=file), log  # noqa: S603


def wait_for(log: Path, text: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if text in log.read_text():
            return True
        time.sleep(0.2)
    return False


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=40)


def wait_healthy(head: subprocess.Popen[bytes]) -> float:
    started = time.monotonic()
    while time.monotonic() - started < 120:
        if head.poll() is not None:
            raise SystemExit(f"the head ended with {head.returncode}")
        try:
            with urllib.request.urlopen(f"{BASE}/healthz", context=CONTEXT, timeout=5) as response:  # noqa: S310
                if response.status == 200:
                    return round(time.monotonic() - started, 1)
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the head is not healthy after 120 s")


def ask(token: str) -> str:
    body = {"model": "soma-tiny", "messages": [{"role": "user", "content": "What is a tenant?"}]}
    request = urllib.request.Request(  # noqa: S310
        f"{BASE}/v1/chat/completions", json.dumps(body).encode(), {"authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, context=CONTEXT, timeout=30) as response:  # noqa: S310
            return json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return str(error.code)


def resident_megabytes() -> int:
    """The sum over all processes of the namespace except this one; shared pages count once for each."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with open(f"/proc/{name}/status") as status:
                total += next((int(line.split()[1]) for line in status if line.startswith("VmRSS")), 0)
    return total // 1024


if __name__ == "__main__":
    main()
