"""A model with a tenant in its name is that tenant's: nobody else is offered it, by whichever name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from somagent_slm.promotions import Refused, opened
from tests.conftest import Files, serving
from tests.test_chat import QUESTION


@pytest.fixture(scope="module")
def served(files: Files) -> Iterator[httpx.Client]:
    small = {"path": str(files.model), "slots": 2}
    models = [{"name": "soma-tiny", **small}, {"name": "soma-tiny@acme", "quantize": "q8_0", **small}]
    with serving(files, SLM_MODEL_PATH="", SLM_MODELS=json.dumps(models)) as client:
        yield client


def ask(client: httpx.Client, tenant: str | None, model: str = "soma-tiny") -> httpx.Response:
    headers = {} if tenant is None else {"x-soma-tenant": tenant}
    return client.post("/v1/chat/completions", json={**QUESTION, "model": model}, headers=headers)


def listed(client: httpx.Client, tenant: str | None) -> list[str]:
    headers = {} if tenant is None else {"x-soma-tenant": tenant}
    return [model["id"] for model in client.get("/v1/models", headers=headers).json()["data"]]


def test_a_tenant_is_answered_by_its_own_model_under_the_name_that_everybody_uses(served: httpx.Client) -> None:
    answer = ask(served, "acme").json()
    assert (answer["model"], answer["soma"]["model"]) == ("soma-tiny", "soma-tiny@acme")
    for stranger in ("globex", "acme-2", None):
        assert ask(served, stranger).json()["soma"]["model"] == "soma-tiny"


def test_nobody_else_can_name_it(served: httpx.Client) -> None:
    assert ask(served, "acme", "soma-tiny@acme").status_code == 200
    for stranger in ("globex", "acme-2", None):
        refused = ask(served, stranger, "soma-tiny@acme")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        # The refusal tells no name of it either.
        assert "ask for 'soma-tiny'" in refused.json()["error"]["message"]
        assert listed(served, stranger) == ["soma-tiny"]
    assert listed(served, "acme") == ["soma-tiny", "soma-tiny@acme"]


@pytest.mark.parametrize("name", ["ACME", "a@b", "acme/..", "a" * 64, "-a", ""])
def test_what_is_no_name_of_a_tenant_is_refused(served: httpx.Client, name: str) -> None:
    refused = ask(served, name)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-soma-tenant")


def test_a_document_is_opened_by_its_signature_only() -> None:
    from base64 import b64encode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    content = b'{"number":1,"tenant":"acme"}'

    def document(signer: Ed25519PrivateKey, told: bytes = content) -> bytes:
        return b'{"promotion":' + told + b',"signature":"' + b64encode(signer.sign(content)) + b'"}'

    assert opened(document(key), "promotion", key.public_key()) == {"number": 1, "tenant": "acme"}
    forged = {
        "the signature of the promotion is wrong": [document(other), document(key, b'{"number":2,"tenant":"acme"}')],
        "it is no signed promotion": [content, b"", document(key)[:-1], b'{"promotion":' + content + b"}"],
    }
    for problem, documents in forged.items():
        for each in documents:
            with pytest.raises(Refused, match=problem):
                opened(each, "promotion", key.public_key())
    with pytest.raises(Refused, match="it is no signed lineage"):
        opened(document(key), "lineage", key.public_key())
