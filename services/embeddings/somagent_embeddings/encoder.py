"""Texts to tokens to vectors: the tokenizer and the model, without queue or protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from openvino import CompiledModel, Core, Model
from somagent_slm.environment import SettingsError
from tokenizers import Tokenizer

from somagent_embeddings.graph import build_graph
from somagent_embeddings.model_folder import ModelFolder, read_model_folder

LENGTH_STEP = 8
"""Lengths are rounded up to it, because the runtime prepares itself for each new shape of a batch."""


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it; `truncated` when its end was cut off."""

    ids: tuple[int, ...]
    truncated: bool


class Precision(StrEnum):
    """What the model is computed in. `auto` is bfloat16 where the processor has instructions for it."""

    AUTO = "auto"
    FLOAT32 = "float32"


class Encoder:
    """The tokenizer may be used by any thread, the model by one at a time; both let go of Python's lock."""

    def __init__(self, path: Path, threads: int, precision: Precision = Precision.AUTO) -> None:
        """Maps the model. Raises SettingsError for a directory that can't be served."""
        self._folder = read_model_folder(path)
        self._tokenizer = _tokenizer(self._folder)
        self._model = _compile(build_graph(self._folder), threads, precision)
        self._request = self._model.create_infer_request()
        self._padding = self._tokenizer.token_to_id("[PAD]") or 0

    @property
    def precision(self) -> str:
        """What it computes in: `f32` or `bf16`."""
        return str(self._model.get_property("INFERENCE_PRECISION_HINT").to_string())

    @property
    def dimensions(self) -> int:
        return self._folder.width

    @property
    def longest(self) -> int:
        """Tokens of a text that count."""
        return self._folder.longest

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        prepared = [text.lower() for text in texts] if self._folder.lowercase else list(texts)
        encodings = self._tokenizer.encode_batch_fast(prepared)
        return [Tokens(tuple(encoding.ids), bool(encoding.overflowing)) for encoding in encodings]

    def embed(self, batch: Sequence[Tokens]) -> np.ndarray:
        """One row per text, float32. Texts of like length should come together: all are padded to the longest."""
        longest = max(len(tokens.ids) for tokens in batch)
        padded = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.longest)
        ids = np.full((len(batch), padded), self._padding, dtype=np.int64)
        mask = np.zeros((len(batch), padded), dtype=np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens.ids)] = tokens.ids
            mask[row, : len(tokens.ids)] = 1
        # The answer is a view of what the next run writes over.
        return self._request.infer([ids, mask, np.arange(padded, dtype=np.int64)])[0].copy()


def _tokenizer(folder: ModelFolder) -> Tokenizer:
    file = folder.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise SettingsError(f"{file} can't be read ({error}); use a model with a fast tokenizer") from error
    # The file may carry settings of the training.
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.longest)
    return tokenizer


def _compile(model: Model, threads: int, precision: Precision) -> CompiledModel:
    core = Core()
    half = precision is Precision.AUTO and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Other pods have the same processors.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)
