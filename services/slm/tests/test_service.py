"""Everything around the model: authentication, health, discovery, configuration."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from somagent_slm.auth import BearerToken
from somagent_slm.model_file import find_model
from somagent_slm.settings import SettingsError, read_settings
from tests.conftest import ROOT, Files, metrics


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x", "{token}"])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_without_the_token_nothing_is_told(client: httpx.Client, files: Files, header: str | None, path: str) -> None:
    request = client.build_request("GET", path)
    del request.headers["authorization"]
    if header is not None:
        request.headers["authorization"] = header.format(token=files.token.read_text())
    response = client.send(request)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_rotated_token_is_accepted_and_the_old_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 40)
    bearer = BearerToken(path)
    assert bearer.accepts("Bearer " + "a" * 40)
    time.sleep(0.01)
    path.write_text("b" * 40)
    assert bearer.accepts("Bearer " + "b" * 40)
    assert not bearer.accepts("Bearer " + "a" * 40)


def test_a_short_token_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with pytest.raises(SettingsError, match="has 6 characters; write at least 32"):
        BearerToken(tmp_path / "token")


def test_the_model_is_listed(client: httpx.Client) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["soma-tiny"]


def test_health_needs_no_token_and_is_cached(client: httpx.Client) -> None:
    request = client.build_request("GET", "/healthz")
    del request.headers["authorization"]
    assert client.send(request).json() == {"status": "ok"}


def test_metrics_count_tokens_and_times(client: httpx.Client) -> None:
    body = {"model": "soma-tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    before = metrics(client)
    completion = client.post("/v1/chat/completions", json=body).json()
    after = metrics(client)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    lane = '{lane="interactive",model="soma-tiny"}'
    assert grown('slm_completion_tokens_total{model="soma-tiny"}') == 5
    assert grown('slm_prompt_tokens_total{model="soma-tiny"}') == completion["usage"]["prompt_tokens"]
    assert grown('slm_requests_total{lane="interactive",model="soma-tiny",status="200"}') == 1
    for name, key in (("queue", "queueMs"), ("first_token", "firstTokenMs"), ("request", "totalMs")):
        assert grown(f"slm_{name}_seconds_count{lane}") == 1
        assert grown(f"slm_{name}_seconds_sum{lane}") == pytest.approx(completion["soma"][key] / 1000, abs=1e-6)


def test_metrics_have_no_label_of_a_callers_making(client: httpx.Client) -> None:
    client.post("/v1/chat/completions", json={"model": "evil", "messages": [{"role": "user", "content": "x"}]})
    assert "evil" not in client.get("/metrics").text
    assert metrics(client)['slm_requests_total{lane="none",model="none",status="404"}'] >= 1


def test_unknown_paths_and_methods_are_explained(client: httpx.Client) -> None:
    assert client.get("/v1/embeddings").json()["error"]["code"] == "not_found"
    assert client.get("/v1/chat/completions").status_code == 405


def test_a_directory_with_one_gguf_is_a_model(tmp_path: Path, files: Files) -> None:
    (tmp_path / "a.gguf").symlink_to(files.model)
    assert find_model(tmp_path) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").symlink_to(files.model)
    with pytest.raises(SettingsError, match=r"several GGUF files \(a.gguf, b.gguf\)"):
        find_model(tmp_path)


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no"):
        find_model(tmp_path)
    (tmp_path / "x.gguf").write_text("hello")
    with pytest.raises(SettingsError, match="not a GGUF file"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLM_MODEL_PATH", "", "SLM_MODEL_PATH is not set"),
        ("SLM_MODEL_PATH", "/nowhere.gguf", "SLM_MODEL_PATH=/nowhere.gguf does not exist"),
        ("SLM_SLOTS", "many", "SLM_SLOTS=many is not usable; set it to a whole number from 1 to 64"),
        ("SLM_PORT", "0", "SLM_PORT=0 is not usable"),
    ],
)
def test_a_wrong_setting_is_named(files: Files, name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({**files.environment(8000), name: value})


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        ("head", "RAY_AUTH_MODE", "disabled", "leaves Ray open"),
        ("head", "RAY_AUTH_TOKEN_PATH", "", "no Ray token"),
        ("worker", "RAY_HEAD_ADDRESS", "", "set it to host:port"),
    ],
)
def test_the_node_does_not_start_unsecured(files: Files, module: str, name: str, value: str, message: str) -> None:
    environment = {**files.environment(8000), "RAY_AUTH_TOKEN_PATH": str(files.ray_token), name: value}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", f"somagent_slm.{module}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
