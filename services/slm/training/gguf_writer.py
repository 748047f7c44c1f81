"""Writes a Llama-architecture model as a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a Llama network; all counts are in elements."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class BpeVocabulary:
    """A byte-level BPE vocabulary as llama.cpp reads it; `tokens[i]` is the token with id i."""

    tokens: Sequence[str]
    merges: Sequence[str]
    control_tokens: frozenset[str]
    end_token: str
    chat_template: str | None
    pre_tokenizer: str = "gpt-2"
    begin_token: str | None = None
    add_begin_token: bool = False


def write_llama(
    path: Path,
    name: str,
    shape: LlamaShape,
    vocabulary: BpeVocabulary,
    tensors: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]],
) -> None:
    """Writes float32 norms and float16 matrices under GGUF tensor names (`blk.0.attn_q.weight` ...)."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(name)
    _add_shape(writer, shape)
    _add_vocabulary(writer, vocabulary)
    items = tensors.items() if isinstance(tensors, Mapping) else tensors
    for tensor_name, tensor in items:
        kind = np.float32 if tensor.ndim == 1 else np.float16
        writer.add_tensor(tensor_name, np.ascontiguousarray(tensor, dtype=kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, shape: LlamaShape) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: BpeVocabulary) -> None:
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    control = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(
        [control if token in vocabulary.control_tokens else gguf.TokenType.NORMAL for token in vocabulary.tokens]
    )
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_bos_token_id(ids[vocabulary.begin_token or vocabulary.end_token])
    writer.add_eos_token_id(ids[vocabulary.end_token])
    writer.add_eot_token_id(ids[vocabulary.end_token])
    writer.add_add_bos_token(vocabulary.add_begin_token)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
