"""Runs inside a network and process namespace of its own, as a pod would: a head, a worker, questions, more questions
than one replica takes, models that change, a replica that is killed, an orderly end.

Prints what was seen as one JSON object; test_ray.py judges it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE = f"https://127.0.0.1:{os.environ['SLM_PORT']}"
CONTEXT = ssl.create_default_context(cafile=os.path.join(os.environ["SLM_TLS_DIR"], "tls.crt"))
TOKEN = open(os.environ["SLM_API_KEY_FILE"]).read().strip()


def main() -> None:
    seen: dict[str, object] = {}
    head, seen["ready_seconds"] = healthy_head()
    seen["answer"] = ask(TOKEN)
    seen["refused"] = ask("wrong" * 8)
    seen["answers"] = {model: ask(TOKEN, model) for model in ("soma-tiny", "soma-tiny-q8")}
    seen["resident_megabytes"] = resident_megabytes()
    seen["scaling"] = scale_up_and_down()
    seen["change"] = change_under_load()
    seen["refusals"] = refuse_what_is_no_model()
    seen["kill"] = kill_while_streaming()
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


def healthy_head() -> tuple[subprocess.Popen[bytes], float]:
    """A head that answers, and the seconds that it took. One that ends is started again, as the kubelet would.

    Ray gives its own processes 30 s by the clock, which a machine with much else to do may not keep.
    """
    for _ in range(4):
        head = start_head()
        started = time.monotonic()
        while head.poll() is None and time.monotonic() - started < 240:
            try:
                with urllib.request.urlopen(f"{BASE}/healthz", context=CONTEXT, timeout=5) as response:  # noqa: S310
                    if response.status == 200:
                        return head, round(time.monotonic() - started, 1)
            except OSError:
                time.sleep(0.2)
    raise SystemExit(f"no head became healthy; the last one ended with {head.poll()}")


def ask(token: str, model: str = "soma-tiny") -> str:
    answer = post({"model": model, "messages": [{"role": "user", "content": "What is a tenant?"}]}, token)
    return str(answer) if isinstance(answer, int) else answer["choices"][0]["message"]["content"]


def post(body: dict[str, Any], token: str = TOKEN) -> dict[str, Any] | int:
    """The completion, or the status of a refusal."""
    try:
        with request("/v1/chat/completions", token, json.dumps(body).encode()) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return error.code


def request(path: str, token: str = TOKEN, body: bytes | None = None) -> Any:
    asked = urllib.request.Request(f"{BASE}{path}", body, {"authorization": f"Bearer {token}"})  # noqa: S310
    return urllib.request.urlopen(asked, context=CONTEXT, timeout=60)  # noqa: S310


def figure(name: str) -> float:
    with request("/metrics") as response:
        lines = response.read().decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def story(model: str, tokens: int) -> dict[str, Any]:
    """A request that takes all of its tokens: what it must say is longer."""
    schema = {"type": "string", "minLength": 5000}
    form = {"type": "json_schema", "json_schema": {"name": "story", "schema": schema}}
    messages = [{"role": "user", "content": "What is a session?"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "response_format": form}


def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until the condition held; None when it did not."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if condition():
            return round(time.monotonic() - started, 1)
        time.sleep(0.3)
    return None


class Load:
    """Callers that ask again and again until the block ends; `answers` has completions and statuses of refusals."""

    def __init__(self, body: dict[str, Any], callers: int) -> None:
        self._stop = threading.Event()
        self._body = body
        self.answers: list[dict[str, Any] | int] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(post(self._body))
            except OSError:
                self.answers.append(0)

    def failed(self) -> list[int]:
        """The statuses of refusals; 0 is a connection that broke."""
        return [answer for answer in self.answers if isinstance(answer, int)]

    def replicas(self) -> list[str]:
        return [answer["soma"]["replica"] for answer in self.answers if isinstance(answer, dict)]


def scale_up_and_down() -> dict[str, Any]:
    replicas = 'slm_replicas{model="soma-tiny"}'
    with Load(story("soma-tiny", 200), 8) as load:
        up = until(lambda: figure(replicas) == 2, 90)
        time.sleep(3)
    answering = len(set(load.replicas()[-16:]))
    down = until(lambda: figure(replicas) == 1, 90)
    return {"up": up, "down": down, "answers": len(load.answers), "failed": load.failed(), "answering": answering}


def declare(*models: dict[str, Any]) -> None:
    """Changes what is declared, as a whole."""
    path = Path(os.environ["SLM_MODELS_FILE"])
    path.with_suffix(".new").write_text(json.dumps(models))
    path.with_suffix(".new").rename(path)


def change_under_load() -> dict[str, Any]:
    changes = 'slm_model_changes_total{model="soma-tiny-q8",outcome="switched"}'
    first, second = json.loads(Path(os.environ["SLM_MODELS_FILE"]).read_text())
    before = figure(changes)
    with Load(story("soma-tiny-q8", 40), 4) as load, Load({**story("soma-tiny-q8", 20)}, 2) as short:
        time.sleep(2)
        old = set(load.replicas())
        declare(first, {**second, "slots": 3})
        switched = until(lambda: figure(changes) == before + 1, 90)
        time.sleep(3)
    return {
        "seconds": switched,
        "answers": len(load.answers) + len(short.answers),
        "failed": load.failed() + short.failed(),
        "another_replica": load.replicas()[-1] not in old,
        "slots": figure('slm_slots{model="soma-tiny-q8"}'),
        "gone": until(lambda: len(replica_processes("soma-tiny-q8")) == 1, 40),
    }


def refuse_what_is_no_model() -> dict[str, Any]:
    refused = 'slm_model_changes_total{model="soma-tiny-q8",outcome="refused"}'
    path = Path(os.environ["SLM_MODELS_FILE"])
    good = path.read_text()
    first, second = json.loads(good)
    broken = path.with_name("broken.gguf")
    # It begins like one, so only llama.cpp finds out.
    broken.write_bytes(b"GGUF" + bytes(64))
    declare(first, {**second, "path": str(broken), "quantize": None})
    seen = {"refused": until(lambda: figure(refused) == 1, 90), "answer": ask(TOKEN, "soma-tiny-q8")}
    path.write_text("[")
    time.sleep(2.5)
    seen["answer_after"] = ask(TOKEN, "soma-tiny-q8")
    path.write_text(good)
    return seen


def replica_processes(model: str) -> list[int]:
    """Ray names its processes after what they run."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            title = Path(f"/proc/{name}/cmdline").read_bytes().decode()
        except OSError:
            continue
        if re.search(rf"ray::ServeReplica:model-{model}-[0-9a-f]{{10}}", title):
            found.append(int(name))
    return found


def kill_while_streaming() -> dict[str, Any]:
    whole: list[dict[str, Any] | int] = []
    waiting = threading.Thread(target=lambda: whole.append(post(story("soma-tiny", 600))))
    with request("/v1/chat/completions", TOKEN, json.dumps({**story("soma-tiny", 900), "stream": True}).encode()) as stream:
        waiting.start()
        lines = [stream.readline() for _ in range(20)]
        [process] = replica_processes("soma-tiny")
        os.kill(process, signal.SIGKILL)
        lines += stream.readlines()
    events = [line.decode().removeprefix("data: ").strip() for line in lines if line.strip()]
    back = until(lambda: ask(TOKEN) not in ("429", "503"), 60)
    waiting.join()
    return {
        "last": events[-1][:400],
        "tokens": len(events) - 1,
        "whole": whole[0] if isinstance(whole[0], int) else whole[0]["choices"][0]["finish_reason"],
        "back": back,
        "answer": ask(TOKEN),
        "another": replica_processes("soma-tiny") not in ([process], []),
    }


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
