"""Several models side by side: the bundled one, and the same one in 8 bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest

from somagent_slm.model_file import find_model
from somagent_slm.quantized import quantize
from somagent_slm.settings import SettingsError, read_settings
from tests.conftest import ROOT, Files, serving
from tests.test_chat import ANSWER, QUESTION
from training.corpus import read_corpus


def declared(files: Files, *changes: dict[str, Any]) -> str:
    return json.dumps([{"name": "soma-tiny", "path": str(files.model), **change} for change in changes])


@pytest.fixture(scope="module")
def pair(files: Files) -> Iterator[httpx.Client]:
    models = declared(files, {"slots": 2}, {"name": "soma-tiny-q8", "quantize": "q8_0", "slots": 2, "context": 512})
    with serving(files, SLM_MODEL_PATH="", SLM_MODELS=models) as client:
        yield client


def test_both_are_listed_and_answer(pair: httpx.Client) -> None:
    names = [model["id"] for model in pair.get("/v1/models").json()["data"]]
    assert names == ["soma-tiny", "soma-tiny-q8"]
    for name in names:
        completion = pair.post("/v1/chat/completions", json={**QUESTION, "model": name}).json()
        assert (completion["model"], completion["soma"]["model"]) == (name, name)
        assert completion["choices"][0]["message"]["content"] == ANSWER


def test_each_has_options_of_its_own(pair: httpx.Client) -> None:
    long = {"messages": [{"role": "user", "content": "session " * 600}], "max_tokens": 1}
    assert pair.post("/v1/chat/completions", json={"model": "soma-tiny", **long}).status_code == 200
    response = pair.post("/v1/chat/completions", json={"model": "soma-tiny-q8", **long})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_third_is_not_found(pair: httpx.Client) -> None:
    error = pair.post("/v1/chat/completions", json={**QUESTION, "model": "gpt-4"}).json()["error"]
    assert error["message"] == "the model 'gpt-4' does not exist here; ask for 'soma-tiny' or 'soma-tiny-q8'"


def test_eight_bits_are_what_the_gguf_package_makes_of_them(files: Files, tmp_path: Path) -> None:
    quantize(files.model, tmp_path / "q8.gguf")
    before, after = gguf.GGUFReader(files.model), gguf.GGUFReader(tmp_path / "q8.gguf")
    assert (tmp_path / "q8.gguf").stat().st_size < 0.65 * files.model.stat().st_size
    pairs = list(zip(before.tensors, after.tensors, strict=True))
    assert [old.name for old, _ in pairs] == [new.name for _, new in pairs]
    small = [(old, new) for old, new in pairs if new.tensor_type == gguf.GGMLQuantizationType.Q8_0]
    assert len(small) == sum(len(old.shape) == 2 for old, _ in pairs)
    for old, new in small:
        theirs = gguf.quants.quantize(old.data.astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(np.asarray(new.data).reshape(-1), theirs.reshape(-1)), old.name


def test_eight_bits_say_nearly_the_same(pair: httpx.Client) -> None:
    questions = [entry.questions[0] for entry in read_corpus(ROOT / "corpus").pairs][::4]

    def answers(model: str) -> list[str]:
        bodies = [{"model": model, "messages": [{"role": "user", "content": question}]} for question in questions]
        told = [pair.post("/v1/chat/completions", json=body).json() for body in bodies]
        return [completion["choices"][0]["message"]["content"] for completion in told]

    same = sum(one == other for one, other in zip(answers("soma-tiny"), answers("soma-tiny-q8"), strict=True))
    assert same / len(questions) > 0.9


def test_what_is_small_already_is_not_made_smaller(files: Files, tmp_path: Path) -> None:
    quantize(files.model, tmp_path / "once.gguf")
    with pytest.raises(SettingsError, match="only float32 and float16 can be quantized"):
        find_model(tmp_path / "once.gguf", "q8_0")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("{", "SLM_MODELS is not JSON"),
        ("[]", "SLM_MODELS is not a list with at least one model"),
        ('[{"name": "a"}]', r"SLM_MODELS\[0\].path: Field required"),
        ('[{"name": "A b", "path": "/"}]', r"SLM_MODELS\[0\].name: .*got A b"),
        ('[{"name": "a", "path": "/nowhere"}]', r"SLM_MODELS\[0\].path /nowhere does not exist"),
        ('[{"name": "a", "path": "/", "minReplicas": 3}]', "minReplicas 3 is above maxReplicas 1"),
        ('[{"name": "a", "path": "/", "quantise": "q8_0"}]', r"SLM_MODELS\[0\].quantise"),
        ('[{"name": "a", "path": "/"}, {"name": "a", "path": "/"}]', "has the name a twice"),
    ],
)
def test_a_wrong_list_is_explained(files: Files, models: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({**files.environment(8000), "SLM_MODEL_PATH": "", "SLM_MODELS": models})


def test_models_are_declared_once(files: Files) -> None:
    with pytest.raises(SettingsError, match="SLM_MODELS and SLM_MODEL_PATH are both set"):
        read_settings({**files.environment(8000), "SLM_MODELS": "[]"})


def test_a_version_changes_with_the_options_and_with_the_file(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(files.model.read_bytes())

    def version(**change: Any) -> str:
        models = json.dumps([{"name": "a", "path": str(path), **change}])
        return read_settings({**files.environment(8000), "SLM_MODEL_PATH": "", "SLM_MODELS": models}).models[0].version

    first = version()
    assert version() == first
    assert version(slots=2) != first
    path.write_bytes(path.read_bytes() + b"\0")
    assert version() != first
