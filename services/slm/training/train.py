"""The training loop: Muon for the matrices of the blocks, AdamW for the rest, a cosine schedule, everything seeded.

Muon learns the corpus in less than half of the computation that AdamW alone took here (https://kellerjordan.github.io/posts/muon/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from somagent_slm.gguf_file import LlamaShape
from training.corpus import Corpus
from training.data import Batch, ExampleMaker, pack
from training.model import Weights, initial_weights, logits


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights apart from the corpus and the tokenizer."""

    seed: int = 20_250_101
    steps: int = 350
    rows: int = 6
    length: int = 256
    peak_rate: float = 6e-3
    peak_matrix_rate: float = 24e-3
    matrix_momentum: float = 0.95
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
        # Several epochs are packed together so that the last rows, which are half empty, stay few. Prose is a third of
        # the text and only teaches the words, so every other epoch leaves it out.
        packed = pack([*maker.epoch(prose=True), *maker.epoch(prose=False)], recipe.length)
        order = rng.permutation(len(packed.tokens))
        for start in range(0, len(order) - recipe.rows + 1, recipe.rows):
            chosen = order[start : start + recipe.rows]
            yield Batch(packed.tokens[chosen], packed.segments[chosen], packed.weights[chosen])


def _schedule(step: jax.Array, recipe: Recipe) -> jax.Array:
    """The share of the peak rates that holds at this step."""
    progress = jnp.clip((step - recipe.warm_up) / (recipe.steps - recipe.warm_up), 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.minimum((step + 1) / recipe.warm_up, 1.0) * jnp.maximum(cosine, 0.02)


def _loss(weights: Weights, tokens: jax.Array, segments: jax.Array, importance: jax.Array, shape: LlamaShape) -> jax.Array:
    scores = jax.nn.log_softmax(logits(weights, tokens[:, :-1], segments[:, :-1], shape))
    chosen = jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(chosen * importance[:, 1:]) / jnp.sum(importance[:, 1:])


def _step(shape, recipe, weights, momentum, variance, tokens, segments, importance, step):  # noqa: ANN001, ANN202
    """One update of all weights."""
    loss, gradient = jax.value_and_grad(_loss)(weights, tokens, segments, importance, shape)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
    scale = jnp.minimum(1.0, recipe.clip / norm)
    share = _schedule(step, recipe)
    for name, g in gradient.items():
        if name.startswith("blk.") and g.ndim == 2:
            change, momentum[name] = _muon(g * scale, momentum[name], recipe)
        else:
            decay = recipe.weight_decay * weights[name] if g.ndim > 1 else 0.0
            change, momentum[name], variance[name] = _adam(g * scale, momentum[name], variance[name], step + 1)
            change = recipe.peak_rate * (change + decay)
        weights[name] = weights[name] - share * change
    return weights, momentum, variance, loss


def _adam(g: jax.Array, momentum: jax.Array, variance: jax.Array, count: jax.Array) -> tuple[jax.Array, ...]:
    """The change per unit of rate and the new state (https://arxiv.org/abs/1711.05101)."""
    momentum = 0.9 * momentum + 0.1 * g
    variance = 0.98 * variance + 0.02 * g * g
    return (momentum / (1 - 0.9**count)) / (jnp.sqrt(variance / (1 - 0.98**count)) + 1e-8), momentum, variance


def _muon(g: jax.Array, momentum: jax.Array, recipe: Recipe) -> tuple[jax.Array, jax.Array]:
    """The change and the new momentum; every direction of the matrix moves equally far."""
    momentum = recipe.matrix_momentum * momentum + g
    change = _orthogonal(g + recipe.matrix_momentum * momentum)
    return recipe.peak_matrix_rate * max(1.0, g.shape[0] / g.shape[1]) ** 0.5 * change, momentum


def _orthogonal(matrix: jax.Array) -> jax.Array:
    """Roughly the nearest matrix with orthogonal rows, by five Newton-Schulz steps with Muon's coefficients."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (jnp.sqrt(jnp.sum(x * x)) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return x.T if tall else x
