"""What is known of a model before it may serve: losses in JAX, answers and forms by llama.cpp, the engine that serves."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import jsonschema
import xllamacpp

from finetune.dataset import Dataset
from finetune.model_file import LoadedModel, read_model
from finetune.tune import mean_loss
from training.corpus import Corpus, Pair
from training.data import Example, pack
from training.tokenizer import TURN_END, TURN_START

_ROW = 256
_ANSWER_TOKENS = 160
_FORM_TOKENS = 256
# Every so many questions of the corpus one is asked again: what the model knew it shall know still.
_EVERY = 5
_CONTROL = re.compile(r"<\|[a-z_]+\|>")

_FORMS: tuple[dict[str, Any], ...] = (
    {
        "type": "object",
        "properties": {"answered": {"type": "boolean"}, "topic": {"enum": ["session", "tenant", "region"]}},
        "required": ["answered", "topic"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["low", "high"]}, "minItems": 1, "maxItems": 3},
)
_TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    for name, arguments in (
        (
            "session.search",
            {
                "type": "object",
                "properties": {"state": {"enum": ["open", "closed"]}, "mine": {"type": "boolean"}},
                "required": ["state", "mine"],
                "additionalProperties": False,
            },
        ),
        (
            "memory.recall",
            {
                "type": "object",
                "properties": {"kind": {"enum": ["episodic", "semantic"]}},
                "required": ["kind"],
                "additionalProperties": False,
            },
        ),
    )
)


def measure(path: Path, dataset: Dataset, corpus: Corpus) -> dict[str, float | None]:
    """Losses in nats per token of the answers (lower is better); shares from 0 to 1 (higher is better).

    A loss that is no number is None: JSON has no name for it, and no gate lets it pass.
    """
    model = read_model(path)
    engine = _Engine(path)
    asked = corpus.pairs[::_EVERY]
    prompts = [pair.questions[0] for pair in (*dataset.held_out, *asked[:10])]
    return {
        "heldOutLoss": _loss(model, dataset.held_out),
        "retentionLoss": _loss(model, asked),
        "answers": _share([engine.says(pair.questions[0]) == pair.answer for pair in asked]),
        "format": _share([engine.is_plain(prompt) for prompt in prompts]),
        "json": _share([engine.conforms(prompt, form) for prompt in prompts[:6] for form in _FORMS]),
        "tools": _share([engine.conforms(prompt, {"anyOf": list(_TOOLS)}) for prompt in prompts[:6]]),
    }


def _loss(model: LoadedModel, pairs: tuple[Pair, ...]) -> float | None:
    batch = pack([_example(model, pair) for pair in pairs], _ROW)
    total, count = jax.jit(lambda weights: mean_loss(weights, batch, model))(model.weights)
    loss = float(total / count)
    return round(loss, 5) if math.isfinite(loss) else None


def _example(model: LoadedModel, pair: Pair) -> Example:
    """Only the answer counts."""
    head = f"{TURN_START}user\n{pair.questions[0]}{TURN_END}\n{TURN_START}assistant\n"
    asked = model.tokenizer.encode(head).ids
    answer = model.tokenizer.encode(f"{pair.answer}{TURN_END}").ids
    return Example([*asked, *answer], [*[0.0] * len(asked), *[1.0] * len(answer)])


def _share(checks: list[bool]) -> float:
    return round(sum(checks) / len(checks), 4)


class _Engine:
    """llama.cpp with the file loaded; every answer is the likeliest one."""

    def __init__(self, path: Path) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_parallel = 1
        parameters.fit_params = False
        # Two threads wait for each other at every token; where other work runs, that is most of the time.
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.verbosity = 1
        # llama.cpp's own HTTP server can't be left out; as a socket beside the file it is nobody else's.
        parameters.hostnames = [str(path.with_suffix(".sock"))]
        self._server = xllamacpp.Server(parameters)

    def says(self, prompt: str) -> str:
        return self._ask(prompt, _ANSWER_TOKENS)["message"]["content"]

    def is_plain(self, prompt: str) -> bool:
        """Whether the answer is text that ends by itself and shows no token of the chat format."""
        choice = self._ask(prompt, _ANSWER_TOKENS)
        content = choice["message"]["content"]
        return choice["finish_reason"] == "stop" and content.strip() != "" and not _CONTROL.search(content)

    def conforms(self, prompt: str, schema: dict[str, Any]) -> bool:
        """Whether an answer under the schema is whole and keeps it."""
        form = {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": schema}}
        choice = self._ask(prompt, _FORM_TOKENS, response_format=form)
        try:
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)
        except (json.JSONDecodeError, jsonschema.ValidationError):
            return False
        return choice["finish_reason"] == "stop"

    def _ask(self, prompt: str, most: int, **options: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        body = {"messages": messages, "temperature": 0, "max_tokens": most, **options}
        return self._server.handle_chat_completions(body)["choices"][0]
