"""A Llama exactly as Hugging Face defines it, in numpy, slow and plain: the judge of the conversion.

Source: https://github.com/huggingface/transformers/blob/main/src/transformers/models/llama/modeling_llama.py
(`rotate_half`, `apply_rotary_pos_emb`, `LlamaAttention`, `LlamaMLP`, `LlamaRMSNorm`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def greedy(stored: Weights, config: dict[str, Any], prompt: list[int], limit: int) -> list[int]:
    """The most likely continuation of `prompt`, token by token, without the final end token."""
    weights = {name: array.astype(np.float32) for name, array in stored.items()}
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        token = int(np.argmax(_logits(weights, config, tokens)))
        if token == config["eos_token_id"]:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def _logits(weights: Weights, config: dict[str, Any], tokens: list[int]) -> np.ndarray:
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        block = {name.split(".", 3)[3]: w for name, w in weights.items() if name.startswith(f"model.layers.{layer}.")}
        x = x + _attention(block, config, _norm(x, block["input_layernorm.weight"], config))
        x = x + _mlp(block, _norm(x, block["post_attention_layernorm.weight"], config))
    return _norm(x[-1], weights["model.norm.weight"], config) @ weights["model.embed_tokens.weight"].T


def _norm(x: np.ndarray, gain: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    return gain * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config["rms_norm_eps"])


def _mlp(block: Weights, x: np.ndarray) -> np.ndarray:
    gate = x @ block["mlp.gate_proj.weight"].T
    return (gate / (1 + np.exp(-gate)) * (x @ block["mlp.up_proj.weight"].T)) @ block["mlp.down_proj.weight"].T


def _attention(block: Weights, config: dict[str, Any], x: np.ndarray) -> np.ndarray:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    query = _rotated(_heads(x @ block["self_attn.q_proj.weight"].T, heads), config)
    key = _rotated(_heads(x @ block["self_attn.k_proj.weight"].T, kv_heads), config)
    value = _heads(x @ block["self_attn.v_proj.weight"].T, kv_heads)
    key, value = (np.repeat(part, heads // kv_heads, axis=0) for part in (key, value))
    scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
    scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
    return mixed.swapaxes(0, 1).reshape(len(x), -1) @ block["self_attn.o_proj.weight"].T


def _heads(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _rotated(x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """`x` is (heads, length, width of a head); entry i turns with entry i + width / 2."""
    width = x.shape[-1]
    frequencies = 1.0 / config["rope_theta"] ** (np.arange(0, width, 2) / width)
    angles = np.arange(x.shape[1])[:, None] * np.concatenate([frequencies, frequencies])[None, :]
    halves = np.concatenate([-x[..., width // 2 :], x[..., : width // 2]], axis=-1)
    return x * np.cos(angles) + halves * np.sin(angles)
