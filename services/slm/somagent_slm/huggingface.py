"""Converts a Hugging Face directory of a Llama to the GGUF file that llama.cpp loads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from somagent_slm.gguf_file import LlamaShape, Tensor, write_llama
from somagent_slm.hf_config import read_json, read_shape
from somagent_slm.hf_tokenizer import read_vocabulary
from somagent_slm.safetensors_file import StoredTensor, read_tensors, weight_files
from somagent_slm.settings import SettingsError

_DESCRIPTIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
_CONVERTERS = ("gguf_file.py", "hf_config.py", "hf_tokenizer.py", "huggingface.py", "safetensors_file.py")


class HuggingFaceModel:
    """A checked directory: config.json, tokenizer.json, safetensors. Raises SettingsError naming what can't be served."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            self._read()
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            # Something deep in a file has another form than the format gives it.
            raise SettingsError(
                f"{directory} is not as transformers writes it ({type(error).__name__}: {error}); download it again"
            ) from error

    def _read(self) -> None:
        config_file = self._directory / "config.json"
        config = read_json(config_file)
        self._shape = read_shape(config_file, config)
        self._vocabulary = read_vocabulary(self._directory, config)
        self._files = weight_files(self._directory)
        stored = read_tensors(self._directory, self._files)
        tied = config.get("tie_word_embeddings", False)
        self._tensors = list(_convert(self._directory, self._shape, stored, tied=tied))

    @property
    def size(self) -> int:
        """Bytes of the tensors; the file is larger by the vocabulary."""
        return sum(tensor.size for tensor in self._tensors)

    def content_key(self) -> str:
        """Hash of everything that decides the converted file: the directory's files, their order, and this code."""
        own = Path(__file__).parent
        descriptions = [self._directory / name for name in _DESCRIPTIONS]
        files = [*(path for path in descriptions if path.exists()), *self._files, *(own / name for name in _CONVERTERS)]
        key = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                key.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return key.hexdigest()[:32]

    def write(self, path: Path) -> None:
        """Writes the GGUF file; one tensor at a time is in memory."""
        write_llama(path, self._directory.resolve().name, self._shape, self._vocabulary, self._tensors)


def _convert(
    directory: Path, shape: LlamaShape, stored: dict[str, StoredTensor], *, tied: bool
) -> Iterator[Tensor]:
    # Older exports hold the rotary frequencies, which follow from the configuration.
    remaining = {name for name in stored if not name.endswith("rotary_emb.inv_freq")}
    if tied:
        remaining.discard("lm_head.weight")
    for source, target, sizes in _layout(shape, tied=tied):
        if source not in stored:
            raise SettingsError(f"{directory}: no safetensors file holds {source}; download the model again")
        tensor = stored[source]
        if tensor.shape != sizes:
            raise SettingsError(
                f"{tensor.file}: {source} has shape {list(tensor.shape)}, by config.json it is {list(sizes)}; "
                "take both files from the same model"
            )
        remaining.discard(source)
        yield _tensor(target, tensor, shape)
    if remaining:
        raise SettingsError(
            f"{directory}: {min(remaining)} is no part of a Llama as config.json describes it; "
            "take a plain model without adapters, biases or quantisation"
        )


def _layout(shape: LlamaShape, *, tied: bool) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name of each tensor in Hugging Face and in GGUF, and its shape (outputs, inputs)."""
    width, hidden, kv_width = shape.width, shape.hidden, shape.kv_heads * shape.head_width
    yield "model.embed_tokens.weight", "token_embd.weight", (shape.vocabulary, width)
    yield "model.norm.weight", "output_norm.weight", (width,)
    if not tied:
        yield "lm_head.weight", "output.weight", (shape.vocabulary, width)
    for layer in range(shape.layers):
        for source, target, sizes in (
            ("input_layernorm", "attn_norm", (width,)),
            ("self_attn.q_proj", "attn_q", (width, width)),
            ("self_attn.k_proj", "attn_k", (kv_width, width)),
            ("self_attn.v_proj", "attn_v", (kv_width, width)),
            ("self_attn.o_proj", "attn_output", (width, width)),
            ("post_attention_layernorm", "ffn_norm", (width,)),
            ("mlp.gate_proj", "ffn_gate", (hidden, width)),
            ("mlp.up_proj", "ffn_up", (hidden, width)),
            ("mlp.down_proj", "ffn_down", (width, hidden)),
        ):
            yield f"model.layers.{layer}.{source}.weight", f"blk.{layer}.{target}.weight", sizes


def _tensor(name: str, stored: StoredTensor, shape: LlamaShape) -> Tensor:
    if len(stored.shape) == 1:
        return Tensor(name, stored.shape, "float32", stored.widened)
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(name.split(".")[-2])
    read = stored.raw if heads is None else lambda: neighbouring_pairs(stored.raw(), heads)
    return Tensor(name, stored.shape, stored.kind, read)


def neighbouring_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of a query or key matrix (heads * width, inputs) from Hugging Face's order to GGUF's.

    Rotary positions turn pairs of rows of a head: (i, i + width/2) in Hugging Face, (2i, 2i + 1) in llama.cpp.
    Source: `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.
    """
    return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)
