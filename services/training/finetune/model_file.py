"""Reads a GGUF file of a Llama back into what it was written from, and writes a tuned one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from somagent_slm.gguf_file import BpeVocabulary, LlamaShape, in_memory, write_llama
from training.export_hf import field_of, tokenizer_of
from training.model import Weights


@dataclass(frozen=True)
class LoadedModel:
    """Weights in float32 under the tensor names of GGUF, each matrix as (outputs, inputs)."""

    name: str
    shape: LlamaShape
    vocabulary: BpeVocabulary
    tokenizer: Tokenizer
    weights: Weights


def read_model(path: Path) -> LoadedModel:
    """Reads a Llama in float16 or float32. Raises ValueError for another architecture or quantised weights."""
    reader = gguf.GGUFReader(path)
    architecture = field_of(reader, "general.architecture")
    if architecture != "llama":
        raise ValueError(f"{path}: general.architecture is {architecture}; only llama can be tuned")
    return LoadedModel(
        name=field_of(reader, "general.name"),
        shape=_shape(reader),
        vocabulary=_vocabulary(reader),
        tokenizer=tokenizer_of(reader),
        weights={tensor.name: _weight(path, tensor) for tensor in reader.tensors},
    )


def write_model(path: Path, model: LoadedModel, weights: Weights) -> None:
    """Writes the weights with the vocabulary and sizes of the model that they were tuned from."""
    tensors = {name: np.asarray(weight) for name, weight in weights.items()}
    write_llama(path, model.name, model.shape, model.vocabulary, in_memory(tensors))


def _weight(path: Path, tensor: gguf.ReaderTensor) -> np.ndarray:
    if tensor.data.dtype not in (np.float16, np.float32):
        raise ValueError(f"{path}: {tensor.name} is {tensor.tensor_type.name}; tune the float16 model it was made from")
    return jnp.asarray(np.array(tensor.data, dtype=np.float32))


def _shape(reader: gguf.GGUFReader) -> LlamaShape:
    return LlamaShape(
        vocabulary=field_of(reader, "llama.vocab_size"),
        width=field_of(reader, "llama.embedding_length"),
        layers=field_of(reader, "llama.block_count"),
        heads=field_of(reader, "llama.attention.head_count"),
        kv_heads=field_of(reader, "llama.attention.head_count_kv"),
        hidden=field_of(reader, "llama.feed_forward_length"),
        context=field_of(reader, "llama.context_length"),
        rope_base=field_of(reader, "llama.rope.freq_base"),
        norm_epsilon=float(field_of(reader, "llama.attention.layer_norm_rms_epsilon")),
    )


def _vocabulary(reader: gguf.GGUFReader) -> BpeVocabulary:
    tokens = field_of(reader, "tokenizer.ggml.tokens")
    types = field_of(reader, "tokenizer.ggml.token_type")
    control = (token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL)
    return BpeVocabulary(
        tokens=tokens,
        merges=field_of(reader, "tokenizer.ggml.merges"),
        control_tokens=frozenset(control),
        end_token=tokens[field_of(reader, "tokenizer.ggml.eos_token_id")],
        chat_template=field_of(reader, "tokenizer.chat_template"),
    )
