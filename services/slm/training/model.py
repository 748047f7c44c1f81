"""The Llama architecture in JAX: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Follows what llama.cpp computes for `general.architecture = llama`, including rotary pairs that are
neighbours (x0,x1), so that the weights go into the GGUF file without being permuted.
Sources: https://arxiv.org/abs/2302.13971 (Llama), https://arxiv.org/abs/2104.09864 (RoPE).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from somagent_slm.gguf_file import LlamaShape

Weights = dict[str, jax.Array]


def initial_weights(shape: LlamaShape, seed: int) -> Weights:
    """Random float32 weights under the tensor names of GGUF, each matrix as (outputs, inputs)."""
    rng = np.random.default_rng(seed)
    kv_width = shape.kv_heads * shape.head_width

    def matrix(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(0.0, scale, (rows, columns)).astype(np.float32))

    inner = shape.width**-0.5
    # Residual branches start smaller the deeper the network is (GPT-2, section 2.3).
    residual = inner / (2 * shape.layers) ** 0.5
    weights: Weights = {
        "token_embd.weight": matrix(shape.vocabulary, shape.width, 0.02),
        "output_norm.weight": jnp.ones(shape.width),
    }
    for layer in range(shape.layers):
        name = f"blk.{layer}."
        weights[name + "attn_norm.weight"] = jnp.ones(shape.width)
        weights[name + "attn_q.weight"] = matrix(shape.width, shape.width, inner)
        weights[name + "attn_k.weight"] = matrix(kv_width, shape.width, inner)
        weights[name + "attn_v.weight"] = matrix(kv_width, shape.width, inner)
        weights[name + "attn_output.weight"] = matrix(shape.width, shape.width, residual)
        weights[name + "ffn_norm.weight"] = jnp.ones(shape.width)
        weights[name + "ffn_gate.weight"] = matrix(shape.hidden, shape.width, inner)
        weights[name + "ffn_up.weight"] = matrix(shape.hidden, shape.width, inner)
        weights[name + "ffn_down.weight"] = matrix(shape.width, shape.hidden, residual)
    return weights


def logits(weights: Weights, tokens: jax.Array, segments: jax.Array, shape: LlamaShape) -> jax.Array:
    """Next-token logits.

    `tokens` and `segments` are int arrays (batch, length); a token sees only earlier tokens of its own
    segment, so that examples packed into one row don't leak into each other. Result: (batch, length, vocabulary).
    """
    length = tokens.shape[1]
    x = weights["token_embd.weight"][tokens]
    causal = jnp.tril(jnp.ones((length, length), bool))
    mask = causal & (segments[:, :, None] == segments[:, None, :])
    rotation = _rotation(length, shape)
    for layer in range(shape.layers):
        block = {key.split(".", 2)[2]: value for key, value in weights.items() if key.startswith(f"blk.{layer}.")}
        x = x + _attention(block, _norm(x, block["attn_norm.weight"], shape), mask, rotation, shape)
        x = x + _feed_forward(block, _norm(x, block["ffn_norm.weight"], shape))
    return _norm(x, weights["output_norm.weight"], shape) @ weights["token_embd.weight"].T


def _norm(x: jax.Array, gain: jax.Array, shape: LlamaShape) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + shape.norm_epsilon) * gain


def _rotation(length: int, shape: LlamaShape) -> tuple[jax.Array, jax.Array]:
    frequencies = shape.rope_base ** (-np.arange(0, shape.head_width, 2) / shape.head_width)
    angles = np.arange(length)[:, None] * frequencies[None, :]
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def _rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    cos, sin = (part[None, :, None, :] for part in rotation)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def _attention(
    block: Weights, x: jax.Array, mask: jax.Array, rotation: tuple[jax.Array, jax.Array], shape: LlamaShape
) -> jax.Array:
    batch, length, _ = x.shape
    query = (x @ block["attn_q.weight"].T).reshape(batch, length, shape.heads, shape.head_width)
    key = (x @ block["attn_k.weight"].T).reshape(batch, length, shape.kv_heads, shape.head_width)
    value = (x @ block["attn_v.weight"].T).reshape(batch, length, shape.kv_heads, shape.head_width)
    group = shape.heads // shape.kv_heads
    query = _rotate(query, rotation)
    key = jnp.repeat(_rotate(key, rotation), group, axis=2)
    value = jnp.repeat(value, group, axis=2)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * shape.head_width**-0.5
    attention = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e9), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", attention, value).reshape(batch, length, shape.width)
    return mixed @ block["attn_output.weight"].T


def _feed_forward(block: Weights, x: jax.Array) -> jax.Array:
    gated = jax.nn.silu(x @ block["ffn_gate.weight"].T) * (x @ block["ffn_up.weight"].T)
    return gated @ block["ffn_down.weight"].T
