"""Texts to tokens to vectors: the tokenizer and the model, without queue or protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from somagent_slm.environment import SettingsError
from tokenizers import Tokenizer

from somagent_embeddings.graph import build_graph
from somagent_embeddings.model_folder import ModelFolder, read_model_folder

_ERRORS = 3


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it; `truncated` when its end was cut off."""

    ids: tuple[int, ...]
    truncated: bool


class Encoder:
    """Thread-safe: the runtime and the tokenizer both let go of Python's lock while they work."""

    def __init__(self, path: Path, threads: int) -> None:
        """Maps the model. Raises SettingsError for a directory that can't be served."""
        self._folder = read_model_folder(path)
        self._tokenizer = _tokenizer(self._folder)
        self._session = _session(self._folder, threads)
        self._padding = self._tokenizer.token_to_id("[PAD]") or 0

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
        ids = np.full((len(batch), longest), self._padding, dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens.ids)] = tokens.ids
            mask[row, : len(tokens.ids)] = 1
        inputs = {"ids": ids, "mask": mask, "positions": np.arange(longest, dtype=np.int64)}
        (embeddings,) = self._session.run(["embeddings"], inputs)
        return embeddings


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


def _session(folder: ModelFolder, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS
    # The arena keeps the largest batch ever seen; without it memory goes back.
    options.enable_cpu_mem_arena = False
    # Waiting threads of the runtime would burn the processor that others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.path))
    graph = build_graph(folder).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
