"""The real engine with the real bundled model, behind a real HTTPS server on the loopback."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Files:
    """What a pod mounts: the model, the token and a certificate for localhost."""

    model: Path
    token: Path
    ray_token: Path
    tls: Path

    def environment(self, port: int) -> dict[str, str]:
        return {
            **os.environ,
            "SLM_MODEL_PATH": str(self.model),
            "SLM_API_KEY_FILE": str(self.token),
            "SLM_TLS_DIR": str(self.tls),
            "SLM_HOST": "127.0.0.1",
            "SLM_PORT": str(port),
            "SLM_SLOTS": "2",
            "SLM_QUEUE": "2",
            "TMPDIR": str(self.tls),
        }


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("pod")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout tls.key -out tls.crt"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)  # noqa: S603
    for name in ("token", "ray-token"):
        (folder / name).write_text(secrets.token_urlsafe(32))
    return Files(Path(os.environ["SLM_TEST_MODEL"]), folder / "token", folder / "ray-token", folder)


@contextmanager
def serving(files: Files, **variables: str) -> Iterator[httpx.Client]:
    """The API in a process of its own, which ends with the block; a client with the token. An empty variable is unset."""
    port = free_port()
    environment = {name: value for name, value in {**files.environment(port), **variables}.items() if value}
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "somagent_slm.standalone"], cwd=ROOT, env=environment
    )
    base = f"https://127.0.0.1:{port}"
    try:
        wait_until_healthy(base, files, process)
        with connected(base, files) as connection:
            yield connection
    finally:
        process.terminate()
        process.wait(timeout=30)


def connected(base: str, files: Files) -> httpx.Client:
    headers = {"authorization": f"Bearer {files.token.read_text().strip()}"}
    context = ssl.create_default_context(cafile=str(files.tls / "tls.crt"))
    return httpx.Client(base_url=base, headers=headers, verify=context, timeout=30)


@pytest.fixture(scope="session")
def server(files: Files) -> Iterator[str]:
    """The base address of the API with the bundled model; ends with the tests."""
    with serving(files) as connection:
        yield str(connection.base_url)


@pytest.fixture
def client(server: str, files: Files) -> Iterator[httpx.Client]:
    """A client with the token, on a connection of its own."""
    with connected(server, files) as connection:
        yield connection


def metrics(client: httpx.Client) -> dict[str, float]:
    """The figures of /metrics by their names and labels."""
    lines = (line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(base: str, files: Files, process: subprocess.Popen[bytes]) -> None:
    context = ssl.create_default_context(cafile=str(files.tls / "tls.crt"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(f"{base}/healthz", verify=context).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server is not healthy after 60 s")
