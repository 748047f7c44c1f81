"""The encoder on the real model: against published similarities and against a second implementation."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from somagent_slm.environment import SettingsError

from somagent_embeddings.encoder import Encoder, Precision
from tests.reference_bert import ReferenceBert

MODEL = Path(os.environ["EMBEDDINGS_TEST_MODEL"])
TEXTS = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
    "Ünïcode, ÉMOJI 🙂 and 漢字; [MASK] stays text?",
    "short",
    "A pod that is killed while it streams starts the turn again elsewhere. " * 6,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MODEL, 1, Precision.FLOAT32)


def test_similarities_are_those_of_the_models_own_page(encoder: Encoder) -> None:
    vectors = encoder.embed(encoder.tokenize(TEXTS[:4]))
    # https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, the example of its widget.
    assert vectors[0] @ vectors[1:].T == pytest.approx([0.695, 0.943, 0.257], abs=0.0006)


def test_a_second_implementation_gives_the_same_vectors(encoder: Encoder) -> None:
    reference = ReferenceBert(MODEL)
    tokens = encoder.tokenize(TEXTS)
    expected = np.array([reference.embed(list(each.ids)) for each in tokens])
    assert np.abs(encoder.embed(tokens) - expected).max() < 1e-5


def test_half_precision_says_what_single_precision_says(encoder: Encoder) -> None:
    fast, tokens = Encoder(MODEL, 1), encoder.tokenize(TEXTS)
    if fast.precision == "f32":
        pytest.skip("this processor has no bfloat16")
    expected, found = encoder.embed(tokens), fast.embed(tokens)
    assert (fast.precision, encoder.precision) == ("bf16", "f32")
    assert np.abs(found - expected).max() > 1e-5  # it is another arithmetic
    assert (found * expected).sum(axis=1).min() > 0.9998
    alone = np.vstack([fast.embed([each]) for each in tokens])
    assert (found * alone).sum(axis=1).min() > 0.9998
    assert found[0] @ found[1:4].T == pytest.approx([0.695, 0.943, 0.257], abs=0.003)


def test_an_answer_is_not_written_over_by_the_next(encoder: Encoder) -> None:
    first, second = encoder.tokenize(TEXTS[:2])
    vector = encoder.embed([first])
    kept = vector.copy()
    encoder.embed([second])
    assert (vector == kept).all()


def test_neighbours_in_a_batch_change_nothing(encoder: Encoder) -> None:
    tokens = encoder.tokenize(TEXTS)
    alone = np.vstack([encoder.embed([each]) for each in tokens])
    assert np.abs(encoder.embed(tokens) - alone).max() < 1e-6
    assert np.linalg.norm(alone, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_a_long_text_is_cut_at_the_models_limit_and_says_so(encoder: Encoder) -> None:
    short, long, longer = encoder.tokenize(["word", "word " * 254, "word " * 255])
    assert (encoder.longest, len(long.ids), len(longer.ids)) == (256, 256, 256)
    assert (short.truncated, long.truncated, longer.truncated) == (False, False, True)
    assert long.ids == longer.ids


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "roberta"}, "model_type is 'roberta'; supported: bert"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("config.json", {"hidden_size": 768}, r"has shape .*384.*, config.json means"),
        ("config.json", {"num_hidden_layers": 7}, "the weights have no encoder.layer.6"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(SettingsError, match=message):
        Encoder(copy, 1)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    with (copy / "model.safetensors").open("rb+") as file:
        file.truncate(1_000_000)
    with pytest.raises(SettingsError, match="does not lie within the file"):
        Encoder(copy, 1)


def test_pooling_by_the_first_token_and_half_precision_are_read(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (copy / "1_Pooling/config.json").write_text(json.dumps(pooling))
    mean, first = (Encoder(path, 1) for path in (MODEL, copy))
    tokens = mean.tokenize(TEXTS[:2])
    assert np.abs(mean.embed(tokens) - first.embed(tokens)).max() > 0.01
