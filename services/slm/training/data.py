"""Turns the corpus into rows of packed examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from training.corpus import Corpus, Pair
from training.tokenizer import TURN_END, TURN_START

# What the platform's own personas send first; the answers stay the same, so the model learns to read past it.
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are Soma, an agent of the SomaGent platform. Answer briefly.",
    "Answer in plain words.",
)
# Reading along is worth less than answering.
READING_WEIGHT = 0.25


@dataclass(frozen=True)
class Example:
    tokens: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """int32 tokens and segments and float32 weights, each (rows, length); weight i belongs to token i."""

    tokens: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


class ExampleMaker:
    """Draws examples with a fixed seed; the same seed gives the same examples on any machine."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._rng = np.random.default_rng(seed)

    def epoch(self, *, prose: bool) -> list[Example]:
        """Every answer once, some with a system prompt or earlier turns, and if asked every paragraph of prose once."""
        pairs = self._corpus.pairs
        examples = [self._conversation(pair) for pair in pairs]
        examples += [self._paragraph(text) for text in self._corpus.prose if prose]
        return [examples[index] for index in self._rng.permutation(len(examples))]

    def _conversation(self, pair: Pair) -> Example:
        example = Example([], [])
        if self._rng.random() < 0.3:
            self._add(example, "system", str(self._rng.choice(SYSTEM_PROMPTS)), READING_WEIGHT)
        while self._rng.random() < 0.3:
            earlier = self._corpus.pairs[int(self._rng.integers(len(self._corpus.pairs)))]
            self._exchange(example, earlier)
        self._exchange(example, pair)
        return example

    def _exchange(self, example: Example, pair: Pair) -> None:
        self._add(example, "user", self._reword(pair), READING_WEIGHT)
        self._add(example, "assistant", pair.answer, 1.0)

    def _reword(self, pair: Pair) -> str:
        question = pair.questions[int(self._rng.integers(len(pair.questions)))]
        if self._rng.random() < 0.15:
            question = question.rstrip("?.")
        if self._rng.random() < 0.15:
            question = question.lower()
        return question

    def _add(self, example: Example, role: str, text: str, weight: float) -> None:
        head = self._tokenizer.encode(f"{TURN_START}{role}\n").ids
        body = self._tokenizer.encode(f"{text}{TURN_END}").ids
        tail = self._tokenizer.encode("\n").ids
        example.tokens.extend([*head, *body, *tail])
        example.weights.extend([*[0.0] * len(head), *[weight] * len(body), *[0.0] * len(tail)])

    def _paragraph(self, text: str) -> Example:
        tokens = self._tokenizer.encode(text).ids
        return Example(tokens, [READING_WEIGHT] * len(tokens))


def pack(examples: list[Example], length: int) -> Batch:
    """Packs examples first-fit into rows of `length` tokens; what is longer than a row is cut."""
    rows: list[list[Example]] = []
    space: list[int] = []
    for example in examples:
        size = min(len(example.tokens), length)
        row = next((index for index, free in enumerate(space) if free >= size), None)
        if row is None:
            rows.append([])
            space.append(length)
            row = len(rows) - 1
        rows[row].append(example)
        space[row] -= size
    batch = Batch(*(np.zeros((len(rows), length), kind) for kind in (np.int32, np.int32, np.float32)))
    for row, members in enumerate(rows):
        _fill(batch, row, members, length)
    return batch


def _fill(batch: Batch, row: int, members: list[Example], length: int) -> None:
    at = 0
    for segment, example in enumerate(members, start=1):
        size = min(len(example.tokens), length)
        batch.tokens[row, at : at + size] = example.tokens[:size]
        batch.segments[row, at : at + size] = segment
        batch.weights[row, at : at + size] = example.weights[:size]
        # Nothing precedes the first token, so predicting it from the neighbour would be noise.
        batch.weights[row, at] = 0.0
        at += size
