"""The queue in front of the real model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from somagent_slm.errors import ApiError

from somagent_embeddings.batcher import BATCH_TOKENS, Batcher
from somagent_embeddings.encoder import Encoder, Precision, Tokens

MODEL = Path(os.environ["EMBEDDINGS_TEST_MODEL"])


class Watched(Encoder):
    """The real encoder, which writes down what it was given."""

    def __init__(self) -> None:
        super().__init__(MODEL, 1, Precision.FLOAT32)
        self.batches: list[list[int]] = []

    def embed(self, batch: Sequence[Tokens]) -> np.ndarray:
        self.batches.append([len(tokens.ids) for tokens in batch])
        return super().embed(batch)


@pytest.fixture(scope="module")
def encoder() -> Watched:
    return Watched()


def test_every_text_gets_its_own_vector_in_its_order(encoder: Watched) -> None:
    texts = [f"text {'long ' * (index * 7 % 40)} {index}" for index in range(60)]
    tokens = encoder.tokenize(texts)

    async def run() -> np.ndarray:
        return await Batcher(encoder, queue=100, deadline=60).embed(tokens)

    expected = np.vstack([encoder.embed([each]) for each in tokens])
    encoder.batches.clear()
    assert np.abs(asyncio.run(run()) - expected).max() < 1e-6
    assert sum(map(len, encoder.batches)) == 60
    assert all(len(batch) * max(batch) <= BATCH_TOKENS for batch in encoder.batches)
    assert len(encoder.batches) < 20


def test_a_short_request_does_not_wait_for_bulk(encoder: Watched) -> None:
    async def run() -> tuple[int, int]:
        batcher = Batcher(encoder, queue=1000, deadline=60)
        bulk = asyncio.create_task(batcher.embed(encoder.tokenize(["word " * 100] * 64)))
        await asyncio.sleep(0)
        await batcher.embed(encoder.tokenize(["quick"]))
        waiting = batcher.waiting
        await bulk
        return waiting, batcher.waiting

    waiting, left = asyncio.run(run())
    assert waiting > 30
    assert left == 0


def test_a_full_queue_and_a_late_turn_are_429(encoder: Watched) -> None:
    async def run(queue: int, deadline: float) -> list[object]:
        batcher = Batcher(encoder, queue=queue, deadline=deadline)
        requests = [batcher.embed(encoder.tokenize(["word " * 200] * 10)) for _ in range(6)]
        return list(await asyncio.gather(*requests, return_exceptions=True))

    full = asyncio.run(run(20, 60))
    refused = [each for each in full if isinstance(each, ApiError)]
    assert {each.body["error"]["code"] for each in refused} == {"queue_full"}
    assert {each.status for each in refused} == {429}
    assert 0 < len(refused) < 6
    late = [each for each in asyncio.run(run(1000, 0.05)) if isinstance(each, ApiError)]
    assert {each.body["error"]["code"] for each in late} == {"queue_deadline"}


def test_who_leaves_takes_his_texts_along(encoder: Watched) -> None:
    async def run() -> int:
        batcher = Batcher(encoder, queue=1000, deadline=60)
        leaving = asyncio.create_task(batcher.embed(encoder.tokenize(["word " * 200] * 100)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        encoder.batches.clear()
        await batcher.embed(encoder.tokenize(["next"]))
        return sum(map(len, encoder.batches))

    assert asyncio.run(run()) < 20


def test_a_failure_of_the_model_reaches_the_caller_and_the_next_one_is_served() -> None:
    class Failing(Watched):
        fails = True

        def embed(self, batch: Sequence[Tokens]) -> np.ndarray:
            if self.fails:
                raise RuntimeError("no memory")
            return super().embed(batch)

    failing = Failing()

    async def run() -> np.ndarray:
        batcher = Batcher(failing, queue=10, deadline=60)
        with pytest.raises(ApiError, match="no memory"):
            await batcher.embed(failing.tokenize(["x"]))
        failing.fails = False
        return await batcher.embed(failing.tokenize(["x"]))

    assert asyncio.run(run()).shape == (1, 384)
