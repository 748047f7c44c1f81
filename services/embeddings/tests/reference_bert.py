"""A second implementation of the model, in plain numpy from the paper, that shares no code with the first."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

_ERF = np.vectorize(math.erf)


class ReferenceBert:
    """One text at a time, float64, no padding, no batches."""

    def __init__(self, path: Path) -> None:
        self._config = json.loads((path / "config.json").read_text())
        raw = (path / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        header.pop("__metadata__", None)
        self._weights = {}
        for name, entry in header.items():
            if entry["dtype"] == "F32":
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                array = np.frombuffer(raw[begin:end], np.float32).reshape(entry["shape"])
                self._weights[name] = array.astype(np.float64)

    def embed(self, ids: list[int]) -> np.ndarray:
        """Mean of the last layer over all tokens, of length 1."""
        weights = self._weights
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = self._norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{layer}")
        pooled = x.mean(axis=0)
        return pooled / np.linalg.norm(pooled)

    def _layer(self, x: np.ndarray, name: str) -> np.ndarray:
        heads = self._config["num_attention_heads"]
        parts = [self._linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        query, key, value = (np.split(part, heads, axis=1) for part in parts)
        mixed = []
        for q, k, v in zip(query, key, value, strict=True):
            scores = q @ k.T / math.sqrt(q.shape[1])
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed.append(odds / odds.sum(axis=1, keepdims=True) @ v)
        attended = self._linear(np.hstack(mixed), f"{name}.attention.output.dense")
        x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = 0.5 * inner * (1 + _ERF(inner / math.sqrt(2)))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self._config["layer_norm_eps"])
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
