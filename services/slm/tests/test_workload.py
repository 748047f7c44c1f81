"""Workload identity: tokens of a real API server, verified with its own keys."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from somagent_slm.auth import Admission, BearerToken, WorkloadTokens, admission
from somagent_slm.errors import ApiError
from somagent_slm.settings import SettingsError, Workloads, read_settings
from tests.conftest import ROOT, Files, connected, free_port, wait_until_healthy

REPOSITORY = ROOT.parent.parent
CALLER = "system:serviceaccount:local-services:orchestrator"


@dataclass(frozen=True)
class Cluster:
    """The API server, this pod's directory for it, and tokens that it has issued."""

    url: str
    directory: Path
    good: str
    foreign: str
    stranger: str

    def workloads(self, url: str | None = None) -> Workloads:
        return Workloads("somagent-slm", frozenset({CALLER}), url or self.url, self.directory)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    command = [str(REPOSITORY / "node_modules/.bin/node"), str(ROOT / "tests/api-server.ts")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        # Lines before it say that the server is waited for.
        described = next(line for line in map(json.loads, process.stdout) if "authority" in line)
        directory = tmp_path_factory.mktemp("kubernetes")
        (directory / "ca.crt").write_text(described["authority"])
        (directory / "token").write_text(described["own"])
        cluster = Cluster(described["url"], directory, described["good"], described["foreign"], described["stranger"])
        wait_until_keys_are_shown(cluster)
        yield cluster
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def wait_until_keys_are_shown(cluster: Cluster) -> None:
    """The server makes the role that shows its keys shortly after it is ready."""
    deadline = time.monotonic() + 30
    while True:
        try:
            WorkloadTokens(cluster.workloads()).accepts(f"Bearer {cluster.good}")
            return
        except ApiError:
            assert time.monotonic() < deadline, "the API server does not show its keys"
            time.sleep(0.2)


def test_a_listed_pod_is_admitted(cluster: Cluster) -> None:
    tokens = WorkloadTokens(cluster.workloads())
    assert tokens.accepts(f"Bearer {cluster.good}")
    assert tokens.accepts(f"bearer {cluster.good}")


def test_a_good_token_is_remembered_and_no_other(cluster: Cluster) -> None:
    workloads = WorkloadTokens(cluster.workloads())

    async def ask() -> list[bool]:
        remembering = Admission(workloads)
        good = await remembering.accepts(f"Bearer {cluster.good}")
        # From here on nobody can be verified: what is still admitted is what was remembered.
        workloads.verify = None  # type: ignore[method-assign,assignment]
        repeated = await remembering.accepts(f"Bearer {cluster.good}")
        with pytest.raises(TypeError):
            await remembering.accepts(f"Bearer {cluster.stranger}")
        return [good, repeated]

    assert asyncio.run(ask()) == [True, True]


def test_a_remembered_token_is_forgotten_at_its_end() -> None:
    class Soon:
        slow = True

        def verify(self, _header: str | None) -> float | None:
            self.asked = getattr(self, "asked", 0) + 1
            return time.time() + 0.2 if self.asked == 1 else None

    async def ask() -> list[bool]:
        remembering = Admission(Soon())
        first = [await remembering.accepts("Bearer x"), await remembering.accepts("Bearer x")]
        await asyncio.sleep(0.25)
        return [*first, await remembering.accepts("Bearer x")]

    assert asyncio.run(ask()) == [True, True, False]


def encoded(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(token: str) -> dict[str, str]:
    header, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kid = jwt.get_unverified_header(token).get("kid")
    changed = encoded({**claims, "exp": claims["exp"] + 9})
    return {
        "another key": jwt.encode(claims, key, "RS256", headers={"kid": kid}),
        "an unknown key": jwt.encode(claims, key, "RS256", headers={"kid": "nobody"}),
        "no signature": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "a shared secret": jwt.encode(claims, "x" * 64, "HS256", headers={"kid": kid}),
        "changed claims": f"{header}.{changed}.{signature}",
        "none": "x",
        "half of one": f"{header}.{body}",
    }


def test_everybody_else_is_not(cluster: Cluster) -> None:
    tokens = WorkloadTokens(cluster.workloads())
    refused = {"another audience": cluster.foreign, "not on the list": cluster.stranger, **forged(cluster.good)}
    for name, token in refused.items():
        assert not tokens.accepts(f"Bearer {token}"), name
    for header in (None, "", "Bearer", f"Basic {cluster.good}", cluster.good):
        assert not tokens.accepts(header), header


def test_while_the_keys_are_out_of_reach_the_token_is_not_blamed(cluster: Cluster) -> None:
    tokens = WorkloadTokens(cluster.workloads("https://127.0.0.1:1"))
    with pytest.raises(ApiError) as caught:
        tokens.accepts(f"Bearer {cluster.good}")
    assert caught.value.status == 503


def environment(files: Files, cluster: Cluster, port: int = 8000) -> dict[str, str]:
    inherited = {name: value for name, value in files.environment(port).items() if name != "SLM_API_KEY_FILE"}
    return {
        **inherited,
        "SLM_WORKLOAD_AUDIENCE": "somagent-slm",
        "SLM_WORKLOAD_CALLERS": CALLER,
        "SLM_KUBERNETES_URL": cluster.url,
        "SLM_KUBERNETES_DIR": str(cluster.directory),
    }


def test_the_server_answers_listed_pods_only(files: Files, cluster: Cluster) -> None:
    port = free_port()
    command = [sys.executable, "-m", "somagent_slm.standalone"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(files, cluster, port))  # noqa: S603
    base = f"https://127.0.0.1:{port}"
    try:
        wait_until_healthy(base, files, process)
        with connected(base, files) as client:
            answers = {
                token: client.get("/v1/models", headers={"authorization": f"Bearer {token}"}).status_code
                for token in (cluster.good, cluster.stranger, cluster.foreign, files.token.read_text().strip())
            }
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert list(answers.values()) == [200, 401, 401, 401]


def test_there_is_exactly_one_way_in(files: Files, cluster: Cluster) -> None:
    assert isinstance(admission(read_settings(environment(files, cluster))).verifier, WorkloadTokens)
    assert isinstance(admission(read_settings(files.environment(8000))).verifier, BearerToken)
    with pytest.raises(SettingsError, match="are both set"):
        read_settings({**environment(files, cluster), "SLM_API_KEY_FILE": str(files.token)})
    with pytest.raises(SettingsError, match="SLM_API_KEY_FILE is not set"):
        read_settings({**files.environment(8000), "SLM_API_KEY_FILE": ""})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLM_WORKLOAD_CALLERS", "", "SLM_WORKLOAD_CALLERS is not set"),
        ("SLM_WORKLOAD_CALLERS", "orchestrator", "SLM_WORKLOAD_CALLERS=orchestrator is not usable"),
        ("SLM_KUBERNETES_URL", "http://x", "SLM_KUBERNETES_URL=http://x is not usable"),
        ("SLM_KUBERNETES_DIR", "/nowhere", "SLM_KUBERNETES_DIR=/nowhere does not exist"),
    ],
)
def test_a_wrong_setting_is_named(files: Files, cluster: Cluster, name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({**environment(files, cluster), name: value})
