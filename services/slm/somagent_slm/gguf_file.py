"""Writes a Llama network as a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3).

Both the training and the conversion of Hugging Face directories end here. The `gguf` package is not used: it would
bring its own dependencies into the image for what is a page of code, and so the tests can use it as a second opinion.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_ALIGNMENT = 32
# Types of values and of tensors, by the numbers of the specification.
_INT32, _UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 5, 4, 6, 7, 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, _UINT32: 4, _INT32: 4, _FLOAT32: 4, _BOOL: 1, 10: 8, 11: 8, 12: 8}
_TENSOR_TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}
_FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32}
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


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
    added_tokens: frozenset[str] = frozenset()
    unused_tokens: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tensor:
    """One tensor: `kind` is float32, float16 or bfloat16; `read` gives an array of `shape` whose bytes are written."""

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * _ITEM_BYTES[self.kind]


def write_llama(
    path: Path, name: str, shape: LlamaShape, vocabulary: BpeVocabulary, tensors: Iterable[Tensor]
) -> None:
    """Writes the file; one tensor at a time is in memory. Tensors have GGUF names (`blk.0.attn_q.weight` ...)."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    matrix_kind = next(tensor.kind for tensor in ordered if len(tensor.shape) > 1)
    values = {**_general(name, matrix_kind), **_sizes(shape), **_tokens(vocabulary)}
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(ordered), len(values)))
        for key, (kind, value) in values.items():
            file.write(_text(key) + struct.pack("<I", kind) + _value(kind, value))
        offset = 0
        for tensor in ordered:
            file.write(_tensor_head(tensor, offset))
            offset += _aligned(tensor.size)
        _pad(file)
        for tensor in ordered:
            file.write(np.ascontiguousarray(tensor.read()).data)
            _pad(file)


def in_memory(tensors: Mapping[str, np.ndarray]) -> list[Tensor]:
    """The arrays as tensors to write: norms in float32, matrices in float16."""

    def tensor(name: str, array: np.ndarray) -> Tensor:
        kind = "float32" if array.ndim == 1 else "float16"
        return Tensor(name, array.shape, kind, lambda: np.asarray(array, dtype=kind))

    return [tensor(name, array) for name, array in tensors.items()]


def trained_context(path: Path) -> int:
    """How many tokens the model in a GGUF file was trained to read. Raises ValueError when the file does not say."""
    with path.open("rb") as file:
        file.seek(16)
        (count,) = struct.unpack("<Q", file.read(8))
        for _ in range(count):
            key = _read_text(file)
            (kind,) = struct.unpack("<I", file.read(4))
            if key.endswith(b".context_length"):
                return int.from_bytes(file.read(_VALUE_BYTES[kind]), "little")
            _skip(file, kind)
    raise ValueError(f"{path} has no context_length")


_Values = dict[str, tuple[int, Any]]


def _general(name: str, matrix_kind: str) -> _Values:
    return {
        "general.architecture": (_STRING, "llama"),
        "general.name": (_STRING, name),
        "general.file_type": (_UINT32, _FILE_TYPES[matrix_kind]),
    }


def _sizes(shape: LlamaShape) -> _Values:
    return {
        "llama.vocab_size": (_UINT32, shape.vocabulary),
        "llama.context_length": (_UINT32, shape.context),
        "llama.embedding_length": (_UINT32, shape.width),
        "llama.block_count": (_UINT32, shape.layers),
        "llama.feed_forward_length": (_UINT32, shape.hidden),
        "llama.attention.head_count": (_UINT32, shape.heads),
        "llama.attention.head_count_kv": (_UINT32, shape.kv_heads),
        "llama.rope.dimension_count": (_UINT32, shape.head_width),
        "llama.rope.freq_base": (_FLOAT32, shape.rope_base),
        "llama.attention.layer_norm_rms_epsilon": (_FLOAT32, shape.norm_epsilon),
    }


def _tokens(vocabulary: BpeVocabulary) -> _Values:
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    end = ids[vocabulary.end_token]
    values: _Values = {
        "tokenizer.ggml.model": (_STRING, "gpt2"),
        "tokenizer.ggml.pre": (_STRING, vocabulary.pre_tokenizer),
        "tokenizer.ggml.tokens": (_ARRAY, (_STRING, vocabulary.tokens)),
        "tokenizer.ggml.token_type": (_ARRAY, (_INT32, [_token_type(vocabulary, token) for token in vocabulary.tokens])),
        "tokenizer.ggml.merges": (_ARRAY, (_STRING, vocabulary.merges)),
        "tokenizer.ggml.bos_token_id": (_UINT32, ids[vocabulary.begin_token or vocabulary.end_token]),
        "tokenizer.ggml.eos_token_id": (_UINT32, end),
        "tokenizer.ggml.eot_token_id": (_UINT32, end),
        "tokenizer.ggml.add_bos_token": (_BOOL, vocabulary.add_begin_token),
    }
    if vocabulary.chat_template is not None:
        values["tokenizer.chat_template"] = (_STRING, vocabulary.chat_template)
    return values


def _token_type(vocabulary: BpeVocabulary, token: str) -> int:
    if token in vocabulary.control_tokens:
        return _CONTROL
    if token in vocabulary.added_tokens:
        return _USER_DEFINED
    return _UNUSED if token in vocabulary.unused_tokens else _NORMAL


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    if kind == _ARRAY:
        item_kind, items = value
        return struct.pack("<IQ", item_kind, len(items)) + b"".join(_value(item_kind, item) for item in items)
    return struct.pack({_INT32: "<i", _UINT32: "<I", _FLOAT32: "<f", _BOOL: "<?"}[kind], value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _tensor_head(tensor: Tensor, offset: int) -> bytes:
    # GGUF counts dimensions from the innermost.
    sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
    return _text(tensor.name) + sizes + struct.pack("<IQ", _TENSOR_TYPES[tensor.kind], offset)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(_aligned(file.tell()) - file.tell()))


def _read_text(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    return file.read(length)


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _read_text(file)
    elif kind == _ARRAY:
        item_kind, count = struct.unpack("<IQ", file.read(12))
        for _ in range(count):
            _skip(file, item_kind)
    else:
        file.seek(_VALUE_BYTES[kind], 1)
