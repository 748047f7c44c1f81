"""`python -m finetune.job FOLDER`: what the Ray job runs. Reads FOLDER, writes `model.gguf` and `report.json` into it.

FOLDER holds `recipe.json`, `base.gguf` and `dataset/` with its manifest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

# Must be set before jax is imported. One thread adds up floats in one order, so the weights are the same each time.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"

import finetune  # noqa: E402
import training  # noqa: E402
from finetune.dataset import read_dataset  # noqa: E402
from finetune.lines import log  # noqa: E402
from finetune.measure import measure  # noqa: E402
from finetune.model_file import read_model, write_model  # noqa: E402
from finetune.tune import Recipe, tune  # noqa: E402
from somagent_slm import gguf_file  # noqa: E402
from training.corpus import read_corpus  # noqa: E402


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    run(arguments.parse_args().folder)
    return 0


def run(folder: Path) -> None:
    """Raises ValueError when the dataset is not the one of its manifest or the base model can't be tuned."""
    started = time.monotonic()
    recipe = Recipe(**json.loads((folder / "recipe.json").read_text()))
    dataset = read_dataset(folder / "dataset")
    corpus_folder = Path(os.environ["TRAINING_CORPUS"])
    corpus = read_corpus(corpus_folder)
    base = folder / "base.gguf"
    model = read_model(base)
    output = folder / "model.gguf"
    write_model(output, model, tune(model, dataset, corpus, recipe, log))
    log("measuring", turns=len(dataset.held_out))
    report = {
        "datasetHash": dataset.hash,
        "codeHash": code_hash(),
        "corpusHash": tree_hash([corpus_folder], "*.md"),
        "baseModelHash": file_hash(base),
        "modelHash": file_hash(output),
        "recipe": asdict(recipe),
        "turns": {"train": len(dataset.train), "heldOut": len(dataset.held_out)},
        "candidate": measure(output, dataset, corpus),
        "serving": measure(base, dataset, corpus),
        "seconds": round(time.monotonic() - started, 1),
    }
    # Whole or not at all: who finds the report finds a finished run.
    (folder / "report.json.new").write_text(json.dumps(report, sort_keys=True))
    (folder / "report.json.new").rename(folder / "report.json")


def code_hash() -> str:
    """SHA-256 over every module that decides the weights or the figures."""
    digest = hashlib.sha256()
    digest.update(tree_hash([Path(finetune.__file__).parent, Path(training.__file__).parent], "*.py").encode())
    digest.update(file_hash(Path(gguf_file.__file__)).encode())
    return digest.hexdigest()


def tree_hash(folders: list[Path], pattern: str) -> str:
    """SHA-256 over names and contents of the files below the folders, in the order of their names."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob(pattern)):
            digest.update(f"{folder.name}/{path.relative_to(folder)} {file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
