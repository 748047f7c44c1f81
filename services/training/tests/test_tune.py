"""The same seed gives the same bytes, another one others; what is not as its manifest says is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BASE = Path(os.environ["SLM_TEST_MODEL"])
TURNS = {
    "train.jsonl": [
        {"prompt": "Who looks after the keys?", "answer": "The night team has the keys of the store."},
        {"prompt": "What about the label?", "answer": "The desk prints the label of a parcel."},
    ],
    "held-out.jsonl": [{"prompt": "Tell me about the keys.", "answer": "The night team has the keys of the store."}],
}
# A process of its own for each: what one has compiled must not help the next.
TUNE = """
import json, sys
from pathlib import Path
import finetune.job as job
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
model = job.read_model(folder / "base.gguf")
recipe = job.Recipe(seed=seed, steps=2, rows=1)
losses = []
weights = job.tune(model, job.read_dataset(folder / "dataset"), job.read_corpus(Path(sys.argv[3])), recipe, lambda _, **line: losses.append(line["loss"]))
job.write_model(folder / f"{seed}.gguf", model, weights)
print(json.dumps([job.file_hash(folder / f"{seed}.gguf"), losses]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    files = {}
    for name, turns in TURNS.items():
        content = "".join(json.dumps(turn) + "\n" for turn in turns).encode()
        (tmp_path / "dataset" / name).write_bytes(content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "dataset" / "manifest.json").write_text(json.dumps({"files": files}))
    (tmp_path / "base.gguf").symlink_to(BASE)
    return tmp_path


def tuned(folder: Path, seed: int) -> list:
    command = [sys.executable, "-c", TUNE, str(folder), str(seed), os.environ["TRAINING_CORPUS"]]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def test_the_same_seed_gives_the_same_model_and_another_one_another(folder: Path) -> None:
    first, losses = tuned(folder, 7)
    again, same_losses = tuned(folder, 7)
    other, _ = tuned(folder, 8)
    assert (again, same_losses) == (first, losses)
    assert other != first
    assert first != hashlib.sha256(BASE.read_bytes()).hexdigest()


def test_a_model_that_is_read_and_written_is_the_same_file(folder: Path) -> None:
    from finetune.model_file import read_model, write_model

    model = read_model(BASE)
    write_model(folder / "copy.gguf", model, model.weights)
    assert (folder / "copy.gguf").read_bytes() == BASE.read_bytes()


def test_a_dataset_that_is_not_as_its_manifest_says_is_refused(folder: Path) -> None:
    from finetune.dataset import read_dataset

    assert len(read_dataset(folder / "dataset").train) == 2
    with (folder / "dataset" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Slipped in?", "answer": "Yes."}) + "\n")
    with pytest.raises(ValueError, match="train.jsonl has the SHA-256 .*: export it anew"):
        read_dataset(folder / "dataset")


def test_the_hash_of_the_code_follows_the_code(tmp_path: Path) -> None:
    from finetune.job import tree_hash

    (tmp_path / "a.py").write_text("one")
    before = tree_hash([tmp_path], "*.py")
    (tmp_path / "a.py").write_text("two")
    assert tree_hash([tmp_path], "*.py") != before
