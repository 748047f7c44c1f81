"""Chunks of llama.cpp in, the OpenAI API's chunks or one completion out.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from somagent_slm.errors import ApiError
from somagent_slm.schema import violation

Chunk = dict[str, Any]

_CALL_HEAD = re.compile(r'\{"name": "((?:[^"\\]|\\.)*)", "arguments": ')


class Answer:
    """One answer on its way. `feed` gives the JSON of what can be told by now, `finish` what is told last.

    `mode` is how its text is to be read (see prompt.binding); with `schema` a JSON answer is checked when it is whole.
    """

    def __init__(self, model: str, mode: str, schema: dict[str, Any] | None, *, stream: bool) -> None:
        self._model = model
        self._mode = mode
        self._schema = schema
        self._stream = stream
        self._text: list[str] = []
        self._call = _Call() if mode == "call" else None
        self._undecided = mode == "either"
        self._head = ""
        self._reason: str | None = None
        self._last: Chunk = {}

    def feed(self, chunk: Chunk) -> list[str]:
        """The JSON of each chunk for the caller; none while nothing can be told, or when the answer goes out whole."""
        if "usage" in chunk:
            self._last = chunk
        told: list[str] = []
        for choice in chunk.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason
            text = choice["delta"].get("content")
            if "role" in choice["delta"]:
                self._begin(chunk)
                told.append(self._chunk({"role": "assistant", "content": None if self._call else ""}))
            if text:
                told.extend(self._chunk(delta) for delta in self._deltas(text))
        return told if self._stream else []

    def finish(self) -> Chunk:
        """`finish`: the last chunk of a stream, or `completion`: the whole; and `usage` and `timings`.

        Raises ApiError 500 when a bound answer is not what it was bound to.
        """
        if not self._last:
            raise ApiError(500, "the model ended without a token; try again", kind="server_error", code="no_answer")
        text = "".join(self._text)
        reason = self._reason or "stop"
        if reason == "stop" and self._schema is not None and (self._mode != "either" or self._call is not None):
            self._check(text)
        deltas = self._call.rest() if self._call and self._stream else []
        if self._call and reason == "stop":
            reason = "tool_calls"
        usage = {key: self._last["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
        told = {"usage": usage, "timings": self._last["timings"]}
        if self._stream:
            rest = [json.loads(self._chunk(delta)) for delta in deltas]
            return {**told, "rest": rest, "finish": json.loads(self._chunk({}, reason))}
        return {**told, "completion": self._completion(text, reason)}

    def _begin(self, chunk: Chunk) -> None:
        self._id, self._created = chunk["id"], chunk["created"]
        base = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        self._head = json.dumps(base, separators=(",", ":"))[:-1] + ',"choices":[{"index":0,"delta":'

    def _chunk(self, delta: Chunk, reason: str | None = None) -> str:
        told = json.dumps(delta, ensure_ascii=False, separators=(",", ":"))
        return f'{self._head}{told},"finish_reason":{json.dumps(reason)}}}]}}'

    def _deltas(self, text: str) -> list[Chunk]:
        self._text.append(text)
        if self._undecided:
            self._undecided = False
            self._call = _Call() if text.startswith("{") else None
        return [{"content": text}] if self._call is None else self._call.feed(text)

    def _check(self, text: str) -> None:
        problem = violation(self._schema or {}, text)
        if problem is not None:
            message = f"the answer is not what it was bound to ({problem}); try again"
            raise ApiError(500, message, kind="server_error", code="unbound_answer")

    def _completion(self, text: str, reason: str) -> Chunk:
        message: Chunk = {"role": "assistant", "content": text}
        if self._call is not None:
            message = {"role": "assistant", "content": None, "tool_calls": self._call.whole(text)}
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }


class _Call:
    """The one call of an answer: its name first, then its arguments as they come."""

    def __init__(self) -> None:
        self._id = f"call_{secrets.token_hex(12)}"
        self._pending = ""
        self._named = False

    def feed(self, text: str) -> list[Chunk]:
        self._pending += text
        deltas: list[Chunk] = []
        if not self._named:
            head = _CALL_HEAD.match(self._pending)
            if head is None:
                return []
            self._named = True
            self._pending = self._pending[head.end() :]
            deltas.append(self._delta({"name": json.loads(f'"{head[1]}"'), "arguments": ""}, first=True))
        # The last brace closes the call, not the arguments: braces wait until something follows.
        told = self._pending.rstrip("} ")
        self._pending = self._pending[len(told) :]
        return [*deltas, self._delta({"arguments": told})] if told else deltas

    def rest(self) -> list[Chunk]:
        told = self._pending.rstrip().removesuffix("}")
        return [self._delta({"arguments": told})] if told and self._named else []

    def whole(self, text: str) -> list[Chunk]:
        """The call as a list; a call that was cut off has what there is."""
        head = _CALL_HEAD.match(text)
        if head is None:
            return []
        arguments = text[head.end() :].rstrip().removesuffix("}")
        function = {"name": json.loads(f'"{head[1]}"'), "arguments": arguments}
        return [{"id": self._id, "type": "function", "function": function}]

    def _delta(self, function: Chunk, *, first: bool = False) -> Chunk:
        call: Chunk = {"index": 0, **({"id": self._id, "type": "function"} if first else {}), "function": function}
        return {"tool_calls": [call]}
