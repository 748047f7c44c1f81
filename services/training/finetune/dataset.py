"""The exported dataset: what its manifest promises is checked before a single example is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from training.corpus import Corpus, Pair


@dataclass(frozen=True)
class Dataset:
    """Approved turns; `held_out` was never trained on. `hash` is the SHA-256 of the manifest."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    hash: str


def read_dataset(folder: Path) -> Dataset:
    """Raises ValueError naming the file that is not what the manifest says, or has nothing in it."""
    manifest = (folder / "manifest.json").read_bytes()
    for name, file in json.loads(manifest)["files"].items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != file["sha256"]:
            raise ValueError(f"{folder / name} has the SHA-256 {found}, its manifest says {file['sha256']}: export it anew")
    return Dataset(
        train=_turns(folder / "train.jsonl"),
        held_out=_turns(folder / "held-out.jsonl"),
        hash=hashlib.sha256(manifest).hexdigest(),
    )


def with_replay(turns: tuple[Pair, ...], corpus: Corpus, copies: int) -> Corpus:
    """The turns, each `copies` times, among what the model knows already: without that it would forget it."""
    return Corpus(pairs=(*turns * copies, *corpus.pairs), prose=())


def _turns(path: Path) -> tuple[Pair, ...]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines:
        raise ValueError(f"{path} has no turn: approve more sessions")
    return tuple(Pair((line["prompt"],), line["answer"]) for line in lines)
