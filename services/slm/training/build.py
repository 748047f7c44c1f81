"""`python -m training.build OUT.gguf`: corpus → tokenizer → weights → GGUF → a real generation by llama.cpp."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

# Must be set before jax is imported; it would search for accelerators.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from somagent_slm.gguf_file import BpeVocabulary, LlamaShape, in_memory, write_llama  # noqa: E402
from training.corpus import Corpus, read_corpus  # noqa: E402
from training.tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, TURN_END, train_tokenizer  # noqa: E402
from training.train import Recipe, train  # noqa: E402
from training.verify import verify  # noqa: E402

VOCABULARY = 1024
SHAPE = LlamaShape(vocabulary=VOCABULARY, width=128, layers=4, heads=4, kv_heads=2, hidden=384, context=1024)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--corpus", type=Path, default=Path(__file__).parent.parent / "corpus")
    arguments.add_argument("--steps", type=int, default=Recipe.steps)
    options = arguments.parse_args()
    corpus = read_corpus(options.corpus)
    tokenizer = train_tokenizer(_texts(corpus), VOCABULARY)
    _log(f"{len(corpus.pairs)} answers, {len(corpus.prose)} paragraphs, vocabulary {tokenizer.get_vocab_size()}")
    weights = train(corpus, tokenizer, SHAPE, Recipe(steps=options.steps), _log)
    tensors = {name: np.asarray(weight) for name, weight in weights.items()}
    _log(f"{sum(tensor.size for tensor in tensors.values()):,} parameters")
    write_llama(options.output, "soma-tiny", SHAPE, _vocabulary(tokenizer), in_memory(tensors))
    _log(f"llama.cpp gives {verify(options.output, corpus):.0%} of the answers word for word")
    return 0


def _texts(corpus: Corpus) -> list[str]:
    return [*(text for pair in corpus.pairs for text in (*pair.questions, pair.answer)), *corpus.prose]


def _vocabulary(tokenizer: Tokenizer) -> BpeVocabulary:
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}: make it longer")
    ids = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return BpeVocabulary(
        tokens=sorted(ids, key=ids.__getitem__),
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        control_tokens=frozenset(SPECIAL_TOKENS),
        end_token=TURN_END,
        chat_template=CHAT_TEMPLATE,
    )


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
