"""The training loop: AdamW with a cosine schedule, everything seeded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from training.gguf_writer import LlamaShape
from training.corpus import Corpus
from training.data import Batch, ExampleMaker, pack
from training.model import Weights, initial_weights, logits


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights apart from the corpus and the tokenizer."""

    seed: int = 20_250_101
    steps: int = 420
    rows: int = 12
    length: int = 256
    peak_rate: float = 4e-3
    warm_up: int = 30
    weight_decay: float = 0.02
    clip: float = 1.0


def train(corpus: Corpus, tokenizer: Tokenizer, shape: LlamaShape, recipe: Recipe, log: Callable[[str], None]) -> Weights:
    """Returns trained float32 weights; logs loss (nats per weighted token) every 30 steps."""
    weights = initial_weights(shape, recipe.seed)
    momentum = jax.tree.map(jnp.zeros_like, weights)
    variance = jax.tree.map(jnp.zeros_like, weights)
    step_function = jax.jit(partial(_step, shape, recipe), donate_argnums=(0, 1, 2))
    started = time.monotonic()
    for step, batch in zip(range(recipe.steps), _batches(corpus, tokenizer, recipe), strict=False):
        weights, momentum, variance, loss = step_function(
            weights, momentum, variance, batch.tokens, batch.segments, batch.weights, np.int32(step)
        )
        if step % 30 == 0 or step == recipe.steps - 1:
            log(f"step {step:4d}/{recipe.steps}  loss {float(loss):.3f}  {time.monotonic() - started:.0f} s")
    return weights


def _batches(corpus: Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Iterator[Batch]:
    maker = ExampleMaker(corpus, tokenizer, recipe.seed)
    rng = np.random.default_rng(recipe.seed + 1)
    while True:
        # Several epochs are packed together so that the last rows, which are half empty, stay few.
        packed = pack([*maker.epoch(), *maker.epoch()], recipe.length)
        order = rng.permutation(len(packed.tokens))
        for start in range(0, len(order) - recipe.rows + 1, recipe.rows):
            chosen = order[start : start + recipe.rows]
            yield Batch(packed.tokens[chosen], packed.segments[chosen], packed.weights[chosen])


def _rate(step: jax.Array, recipe: Recipe) -> jax.Array:
    progress = jnp.clip((step - recipe.warm_up) / (recipe.steps - recipe.warm_up), 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return recipe.peak_rate * jnp.minimum((step + 1) / recipe.warm_up, 1.0) * jnp.maximum(cosine, 0.02)


def _loss(weights: Weights, tokens: jax.Array, segments: jax.Array, importance: jax.Array, shape: LlamaShape) -> jax.Array:
    scores = jax.nn.log_softmax(logits(weights, tokens[:, :-1], segments[:, :-1], shape))
    chosen = jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(chosen * importance[:, 1:]) / jnp.sum(importance[:, 1:])


def _step(shape, recipe, weights, momentum, variance, tokens, segments, importance, step):  # noqa: ANN001, ANN202
    """One AdamW update (https://arxiv.org/abs/1711.05101)."""
    loss, gradient = jax.value_and_grad(_loss)(weights, tokens, segments, importance, shape)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
    scale = jnp.minimum(1.0, recipe.clip / norm)
    rate, count = _rate(step, recipe), step + 1
    for name, g in gradient.items():
        g = g * scale
        momentum[name] = 0.9 * momentum[name] + 0.1 * g
        variance[name] = 0.98 * variance[name] + 0.02 * g * g
        update = (momentum[name] / (1 - 0.9**count)) / (jnp.sqrt(variance[name] / (1 - 0.98**count)) + 1e-8)
        decay = recipe.weight_decay if g.ndim > 1 else 0.0
        weights[name] = weights[name] - rate * (update + decay * weights[name])
    return weights, momentum, variance, loss
