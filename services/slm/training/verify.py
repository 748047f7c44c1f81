"""Loads a GGUF file with llama.cpp, the engine that will serve it, and asks it every question of the corpus."""

from __future__ import annotations

from pathlib import Path

import xllamacpp

from training.corpus import Corpus

# Below this the training went wrong; a healthy run answers nearly everything word for word.
LEAST_SHARE = 0.9


def verify(path: Path, corpus: Corpus) -> float:
    """The share of answers given word for word at temperature 0. Raises RuntimeError below LEAST_SHARE."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = 1
    parameters.fit_params = False
    parameters.verbosity = 1
    # llama.cpp's own HTTP server can't be left out; as a socket beside the file it is nobody else's.
    parameters.hostnames = [str(path.with_suffix(".sock"))]
    server = xllamacpp.Server(parameters)
    right = sum(_answer(server, pair.questions[0]) == pair.answer for pair in corpus.pairs)
    share = right / len(corpus.pairs)
    if share < LEAST_SHARE:
        raise RuntimeError(f"only {share:.0%} of the answers are right, {LEAST_SHARE:.0%} are needed; train longer")
    return share


def _answer(server: xllamacpp.Server, question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 160}
    return server.handle_chat_completions(body)["choices"][0]["message"]["content"]
