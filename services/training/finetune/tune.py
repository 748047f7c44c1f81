"""Further training of given weights: AdamW with a warm-up and a linear end, everything seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from finetune.dataset import Dataset, with_replay
from finetune.model_file import LoadedModel
from training.corpus import Corpus
from training.data import Batch, ExampleMaker, pack
from training.model import Weights, logits


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights apart from model, dataset and code."""

    seed: int = 20_250_101
    steps: int = 80
    rows: int = 4
    length: int = 256
    rate: float = 5e-4
    warm_up: int = 5
    weight_decay: float = 0.01
    clip: float = 1.0
    copies: int = 3


def tune(model: LoadedModel, dataset: Dataset, corpus: Corpus, recipe: Recipe, log: Callable[..., None]) -> Weights:
    """Returns tuned float32 weights; logs the loss (nats per weighted token) every 10 steps."""
    weights = dict(model.weights)
    momentum = jax.tree.map(jnp.zeros_like, weights)
    variance = jax.tree.map(jnp.zeros_like, weights)
    step_function = jax.jit(partial(_step, model, recipe))
    for step, batch in zip(range(recipe.steps), _batches(model, dataset, corpus, recipe), strict=False):
        arrays = (batch.tokens, batch.segments, batch.weights)
        weights, momentum, variance, loss = step_function(weights, momentum, variance, *arrays, np.int32(step))
        if step % 10 == 0 or step == recipe.steps - 1:
            log("training", step=step, steps=recipe.steps, loss=round(float(loss), 4))
    return weights


def mean_loss(weights: Weights, batch: Batch, model: LoadedModel) -> tuple[jax.Array, jax.Array]:
    """Sum of the weighted negative log-likelihoods (nats) and the sum of the weights."""
    scores = jax.nn.log_softmax(logits(weights, batch.tokens[:, :-1], batch.segments[:, :-1], model.shape))
    chosen = jnp.take_along_axis(scores, batch.tokens[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(chosen * batch.weights[:, 1:]), jnp.sum(batch.weights[:, 1:])


def _batches(model: LoadedModel, dataset: Dataset, corpus: Corpus, recipe: Recipe) -> Iterator[Batch]:
    maker = ExampleMaker(with_replay(dataset.train, corpus, recipe.copies), model.tokenizer, recipe.seed)
    rng = np.random.default_rng(recipe.seed + 1)
    while True:
        packed = pack(maker.epoch(prose=False), recipe.length)
        order = rng.permutation(len(packed.tokens))
        for start in range(0, len(order), recipe.rows):
            # The last rows are filled up with the first, that every batch has the shape that was compiled.
            chosen = np.resize(order[start : start + recipe.rows], recipe.rows)
            yield Batch(packed.tokens[chosen], packed.segments[chosen], packed.weights[chosen])


def _step(model, recipe, weights, momentum, variance, tokens, segments, importance, step):  # noqa: ANN001, ANN202
    """One update of all weights (https://arxiv.org/abs/1711.05101)."""

    def loss_of(candidate: Weights) -> jax.Array:
        total, count = mean_loss(candidate, Batch(tokens, segments, importance), model)
        return total / count

    loss, gradient = jax.value_and_grad(loss_of)(weights)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
    scale = jnp.minimum(1.0, recipe.clip / norm)
    share = jnp.minimum((step + 1) / recipe.warm_up, 1.0) * (1.0 - step / recipe.steps)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g * scale, momentum, gradient)
    variance = jax.tree.map(lambda v, g: 0.98 * v + 0.02 * (g * scale) ** 2, variance, gradient)

    def moved(weight: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        change = (m / (1 - 0.9 ** (step + 1))) / (jnp.sqrt(v / (1 - 0.98 ** (step + 1))) + 1e-8)
        decay = recipe.weight_decay * weight if weight.ndim > 1 else 0.0
        return weight - share * recipe.rate * (change + decay)

    return jax.tree.map(moved, weights, momentum, variance), momentum, variance, loss
