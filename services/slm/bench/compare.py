"""`python -m bench.compare`: asks the model alone, our way and Serve's default way in turn, and prints what each took.

Runs in a network namespace of its own (bench.sh), because Ray binds more than the loopback otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somagent_slm.engine import _load

OURS, DEFAULT = 8000, 8100
PARTS, PERCENTS = ("first", "total"), (10, 50, 95)
# How the titles of the processes begin that a request passes through.
HOPS = {
    "our way": {"router": "ray::ServeReplica:slm:", "replica": "ray::ServeReplica:model-"},
    "Serve's default": {"proxy": "ray::ProxyActor", "replica": "ray::ServeReplica:default:"},
}
QUESTION = {"messages": [{"role": "user", "content": "What is a session?"}], "temperature": 0, "stream": True}
OPTIONS = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Taken:
    """Milliseconds until the first token and until the end; `tokens` were written.

    `path` is until the first token too, for a request that has been read, by the router's own clock: without HTTPS.
    """

    first: float
    total: float
    tokens: int
    path: float | None = None


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=300)
    arguments.add_argument("--tokens", type=int, default=16)
    arguments.add_argument("--callers", type=int, default=4)
    arguments.add_argument("--realtime", action="store_true", help="let nothing else come between; needs root")
    options = arguments.parse_args()
    limit = {"max_tokens": options.tokens}
    with _Server("somagent_slm.head", OURS), _Server("bench.default_chain", DEFAULT):
        alone = _Alone(limit)
        ways: dict[str, Callable[[], Taken]] = {
            "model alone": alone.ask,
            "our way": _Https(OURS, limit).ask,
            "Serve's default": _Https(DEFAULT, limit).ask,
        }
        if options.realtime:
            _come_first()
        taken = _in_turn(ways, options.rounds)
        _report(taken, options.tokens)
        _report_work(ways, options.rounds)
        _report_load({"our way": OURS, "Serve's default": DEFAULT}, limit, options.callers, options.rounds)
    return 0


def _in_turn(ways: dict[str, Callable[[], Taken]], rounds: int) -> dict[str, list[Taken]]:
    """Each way once in each round, so that what else the machine does falls on all of them."""
    for ask in ways.values():
        for _ in range(20):
            ask()
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            taken[name].append(ask())
    counts = {name: {one.tokens for one in each} for name, each in taken.items()}
    if len(set(map(frozenset, counts.values()))) != 1:
        raise SystemExit(f"the ways did not write the same number of tokens: {counts}")
    return taken


def _report(taken: dict[str, list[Taken]], tokens: int) -> None:
    print(f"one request after the other, {len(taken['our way'])} rounds, at most {tokens} tokens; milliseconds")
    print(f"{'':18}" + "".join(f"{part} p{percent}".rjust(11) for part in PARTS for percent in PERCENTS))
    base = taken["model alone"]
    for name, each in taken.items():
        print(f"{name:18}" + "".join(f"{_p(each, part, percent):11.3f}" for part in PARTS for percent in PERCENTS))
    for part in PARTS:
        for percent in (10, 50):
            # The tenth percentile is what a machine that does nothing else comes closest to.
            over = {name: _p(each, part, percent) - _p(base, part, percent) for name, each in taken.items()}
            ours, default = over["our way"], over["Serve's default"]
            print(
                f"overhead over the model, {part} p{percent}: ours {ours:.3f} ms, Serve's default {default:.3f} ms: "
                f"{default / ours if ours > 0 else float('inf'):.1f} times less"
            )
    path = statistics.median(one.path for one in taken["our way"] if one.path is not None)
    print(f"within our processes (router to model and back, without HTTPS), first p50: {path - _p(base, 'first', 50):.3f} ms")


def _report_work(ways: dict[str, Callable[[], Taken]], rounds: int) -> None:
    """Processor time: what else the machine does makes answers late, but hardly more work."""
    print(f"processor time of a request, {rounds} of each way; milliseconds")
    work: dict[str, dict[str, float]] = {}
    for name, ask in ways.items():
        before = _worked(name)
        for _ in range(rounds):
            ask()
        work[name] = {hop: (used - before[hop]) / rounds for hop, used in _worked(name).items()}
        hops = ", ".join(f"{hop} {used:.3f}" for hop, used in work[name].items())
        print(f"{name:18}{sum(work[name].values()):8.3f} ({hops})")
    model = sum(work["model alone"].values())
    ours, default = (sum(work[name].values()) - model for name in ("our way", "Serve's default"))
    print(f"work beside the model: ours {ours:.3f} ms, Serve's default {default:.3f} ms: {default / ours:.1f} times less")


def _worked(way: str) -> dict[str, float]:
    """Milliseconds that the processes of each hop have worked so far; the client is on no list but that of the model."""
    if way == "model alone":
        return {"model": time.process_time() * 1000}
    used = dict.fromkeys(HOPS[way], 0.0)
    for hop, process in _processes(HOPS[way]):
        tasks = process.glob("task/*/schedstat")
        used[hop] += sum(int(task.read_text().split()[0]) for task in tasks) / 1e6
    return used


def _processes(hops: dict[str, str]) -> Iterator[tuple[str, Path]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes().decode()
            yield from ((hop, process) for hop, start in hops.items() if title.startswith(start))


def _come_first() -> None:
    """All that a request passes through goes before what else the machine does. Raises PermissionError."""
    passed = [process for hops in HOPS.values() for _, process in _processes(hops)]
    for process in (Path("/proc/self"), *passed):
        for task in process.glob("task/*"):
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))


def _report_load(ports: dict[str, int], limit: dict[str, Any], callers: int, rounds: int) -> None:
    print(f"{callers} callers at once, {rounds} requests")
    for name, port in ports.items():
        started = time.monotonic()
        with ThreadPoolExecutor(callers) as pool:
            shares = [pool.submit(_ask_often, port, limit, rounds // callers) for _ in range(callers)]
            taken = [one for share in shares for one in share.result()]
        seconds = time.monotonic() - started
        tokens = sum(one.tokens for one in taken)
        print(
            f"{name:18}total p50 {_p(taken, 'total', 50):8.3f} ms, p95 {_p(taken, 'total', 95):8.3f} ms, "
            f"{len(taken) / seconds:6.1f} requests/s, {tokens / seconds:7.0f} tokens/s"
        )


def _ask_often(port: int, limit: dict[str, Any], times: int) -> list[Taken]:
    way = _Https(port, limit)
    return [way.ask() for _ in range(times)]


def _p(each: list[Taken], part: str, percent: int) -> float:
    return statistics.quantiles((getattr(one, part) for one in each), n=100)[percent - 1]


class _Alone:
    """llama.cpp in this process, called as directly as its binding allows."""

    def __init__(self, limit: dict[str, Any]) -> None:
        self._server = _load(Path(os.environ["SLM_MODEL_PATH"]), 4, 1, 0)
        self._body = {**QUESTION, **OPTIONS, **limit}

    def ask(self) -> Taken:
        first: list[float] = []
        usage: list[int] = []

        def on_chunk(chunk: dict[str, Any]) -> bool:
            if not first:
                first.append(time.perf_counter())
            if "usage" in chunk:
                usage.append(chunk["usage"]["completion_tokens"])
            return False

        started = time.perf_counter()
        self._server.handle_chat_completions(self._body, on_chunk)
        ended = time.perf_counter()
        return Taken((first[0] - started) * 1000, (ended - started) * 1000, usage[0])


class _Https:
    """One kept connection and a request that is made once: the client costs next to nothing."""

    def __init__(self, port: int, limit: dict[str, Any]) -> None:
        context = ssl.create_default_context(cafile=os.path.join(os.environ["SLM_TLS_DIR"], "tls.crt"))
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname="localhost")
        body = json.dumps({"model": "soma-tiny", **QUESTION, **OPTIONS, **limit}).encode()
        token = Path(os.environ["SLM_API_KEY_FILE"]).read_text().strip()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    def ask(self) -> Taken:
        started = time.perf_counter()
        self._socket.sendall(self._request)
        answer, first = bytearray(), 0.0
        while not answer.endswith(b"0\r\n\r\n"):
            part = self._socket.recv(65536)
            if not part:
                raise SystemExit(f"the server closed the connection: {bytes(answer[-300:])!r}")
            answer += part
            if not first and b"data: " in answer:
                first = time.perf_counter()
        ended = time.perf_counter()
        if b"data: [DONE]" not in answer:
            raise SystemExit(f"the answer is not whole: {bytes(answer[:600])!r}")
        tokens = int(answer.rpartition(b'"completion_tokens":')[2].split(b",")[0])
        told = answer.rpartition(b'"firstTokenMs":')[2].split(b",")[0]
        path = float(told) if b'"firstTokenMs":' in answer else None
        return Taken((first - started) * 1000, (ended - started) * 1000, tokens, path)


class _Server:
    """A head with its own Ray, answering within the block."""

    def __init__(self, module: str, port: int) -> None:
        folder = tempfile.mkdtemp(prefix="r-")
        variables = {"SLM_PORT": str(port), "RAY_TMPDIR": folder, "RAY_PORT": str(6379 + port - OURS)}
        self._port = port
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module], env={**os.environ, **variables}, stdout=subprocess.PIPE
        )

    def __enter__(self) -> _Server:
        threading.Thread(target=lambda: self._process.stdout and self._process.stdout.read(), daemon=True).start()
        context = ssl.create_default_context(cafile=os.path.join(os.environ["SLM_TLS_DIR"], "tls.crt"))
        token = Path(os.environ["SLM_API_KEY_FILE"]).read_text().strip()
        body = json.dumps({"model": "soma-tiny", **QUESTION, "max_tokens": 1}).encode()
        address = f"https://127.0.0.1:{self._port}/v1/chat/completions"
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                asked = urllib.request.Request(address, body, {"authorization": f"Bearer {token}"})  # noqa: S310
                with urllib.request.urlopen(asked, context=context, timeout=10) as response:  # noqa: S310
                    response.read()
                return self
            except OSError:
                time.sleep(0.3)
        raise SystemExit(f"the server at {self._port} does not answer")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
