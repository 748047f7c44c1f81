"""`python -m training.export_hf MODEL.gguf DIRECTORY`: our GGUF file as a Hugging Face directory.

The packages of the two formats (`gguf`, `safetensors`) read and write here, not the code that serves, so that a test
that converts back checks that code against somebody else's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
KINDS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--kind", choices=KINDS, default="float16")
    arguments.add_argument("--shards", type=int, default=1)
    options = arguments.parse_args()
    export(options.model, options.directory, kind=options.kind, shards=options.shards)
    return 0


def export(model: Path, directory: Path, *, kind: str, shards: int) -> None:
    """Writes config.json, tokenizer.json, tokenizer_config.json and the weights as `kind` in `shards` files."""
    directory.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(model)
    _write_json(directory / "config.json", _config(reader, kind))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "eos_token": _end_token(reader),
            "add_bos_token": field_of(reader, "tokenizer.ggml.add_bos_token"),
            "chat_template": field_of(reader, "tokenizer.chat_template"),
        },
    )
    tokenizer_of(reader).save(str(directory / "tokenizer.json"))
    _write_weights(directory, _weights(reader), kind, shards)


def _config(reader: gguf.GGUFReader, kind: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": field_of(reader, "llama.vocab_size"),
        "hidden_size": field_of(reader, "llama.embedding_length"),
        "intermediate_size": field_of(reader, "llama.feed_forward_length"),
        "num_hidden_layers": field_of(reader, "llama.block_count"),
        "num_attention_heads": field_of(reader, "llama.attention.head_count"),
        "num_key_value_heads": field_of(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": field_of(reader, "llama.context_length"),
        "rms_norm_eps": field_of(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": field_of(reader, "llama.rope.freq_base"),
        "hidden_act": "silu",
        "bos_token_id": None,
        "eos_token_id": field_of(reader, "tokenizer.ggml.eos_token_id"),
        "tie_word_embeddings": True,
        "torch_dtype": kind,
    }


def tokenizer_of(reader: gguf.GGUFReader) -> Tokenizer:
    """The tokenizer of a GGUF file, as Hugging Face's package has it."""
    tokens, types = field_of(reader, "tokenizer.ggml.tokens"), field_of(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field_of(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def _end_token(reader: gguf.GGUFReader) -> str:
    return field_of(reader, "tokenizer.ggml.tokens")[field_of(reader, "tokenizer.ggml.eos_token_id")]


def _weights(reader: gguf.GGUFReader) -> dict[str, np.ndarray]:
    heads = {
        "attn_q": field_of(reader, "llama.attention.head_count"),
        "attn_k": field_of(reader, "llama.attention.head_count_kv"),
    }
    weights = {}
    for tensor in reader.tensors:
        part = tensor.name.split(".")[-2]
        array = _halves(tensor.data, heads[part]) if part in heads else tensor.data
        weights[_name(tensor.name)] = array
    return weights


def _name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{_NAMES[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _halves(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs from neighbours, as in GGUF, to the two halves of each head, as in Hugging Face."""
    return matrix.reshape(heads, -1, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def _write_weights(directory: Path, weights: dict[str, np.ndarray], kind: str, shards: int) -> None:
    names = sorted(weights)
    files = [f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index in range(shards)]
    if shards == 1:
        files = ["model.safetensors"]
    for index, file in enumerate(files):
        members = {name: _cast(weights[name], kind) for name in names[index::shards]}
        save_file(members, directory / file, {"format": "pt"})
    if shards > 1:
        weight_map = {name: files[index % shards] for index, name in enumerate(names)}
        _write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _cast(array: np.ndarray, kind: str) -> np.ndarray:
    # GGUF keeps the norms in float32; so does float16 here, that the weights come back without a bit changed.
    exact = kind == "float16" and array.ndim == 1
    return np.ascontiguousarray(array, dtype=np.float32 if exact else KINDS[kind])


def field_of(reader: gguf.GGUFReader, key: str) -> Any:
    """A value of the file's head."""
    return reader.fields[key].contents()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
