"""A request as llama.cpp takes it: messages, sampling and the grammar that binds the answer.

Tools are described and called in one form of ours for every model, `{"name": ..., "arguments": {...}}`: most small
models' templates know no tools, and llama.cpp's own tool grammars let a model talk before it calls, even when it must.
"""

from __future__ import annotations

import json
from typing import Any

from somagent_slm.requests import ChatRequest, Function, Message

Body = dict[str, Any]

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# A first character that can't begin a call tells text from calls at once.
_TEXT = r"/[^{\s](.|\n)*/"


def llama_body(request: ChatRequest) -> Body:
    """The body for llama.cpp's server, always streaming, always with usage."""
    body: Body = {
        "messages": _messages(request),
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    optional = {
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "top_p": request.top_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": request.seed,
        "stop": request.stop,
        "grammar": _grammar(request),
    }
    body.update({key: value for key, value in optional.items() if value is not None})
    return body


def binding(request: ChatRequest) -> tuple[str, dict[str, Any] | None]:
    """How to read the answer: `text`, `json`, `call` or `either`; and the schema that a JSON answer must keep."""
    functions = request.callable_tools()
    if functions:
        return ("call" if request.must_call else "either"), _call_schema(functions)
    schema = request.answer_schema
    return ("text", None) if schema is None else ("json", schema)


def _grammar(request: ChatRequest) -> str | None:
    mode, schema = binding(request)
    if schema is None:
        return None
    bound = "%json " + json.dumps({"x-guidance": _COMPACT, **schema})
    start = f"start: call | text\ncall: {bound}\ntext: {_TEXT}" if mode == "either" else f"start: {bound}"
    return f"%llguidance {{}}\n{start}\n"


def _call_schema(functions: list[Function]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    calls = []
    for index, function in enumerate(functions):
        # Their own references start at their own root, which now lies deeper.
        definitions[f"arguments{index}"] = _moved(function.parameters, f"#/$defs/arguments{index}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": {"$ref": f"#/$defs/arguments{index}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": definitions}


def _moved(schema: Any, root: str) -> Any:
    if isinstance(schema, list):
        return [_moved(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: root + value[1:] if key == "$ref" and isinstance(value, str) else _moved(value, root)
        for key, value in schema.items()
    }


def _messages(request: ChatRequest) -> list[dict[str, str]]:
    messages = [_message(message) for message in request.messages]
    functions = request.callable_tools()
    if functions:
        described = "\n".join(_described(function) for function in functions)
        text = f'Tools, called by {{"name": ..., "arguments": {{...}}}}:\n{described}'
        if messages[0]["role"] == "system":
            messages[0]["content"] += f"\n{text}"
        else:
            messages.insert(0, {"role": "system", "content": text})
    return messages


def _described(function: Function) -> str:
    described = function.model_dump(exclude_none=True, exclude={"strict"})
    return json.dumps(described, ensure_ascii=False, separators=(",", ":"))


def _message(message: Message) -> dict[str, str]:
    if message.role == "developer":
        return {"role": "system", "content": message.text}
    if message.role == "tool":
        return {"role": "user", "content": f"Result of {message.tool_call_id}: {message.text}"}
    calls = [
        f'{{"name": {json.dumps(call.function.name)}, "arguments": {call.function.arguments}}}'
        for call in message.tool_calls or []
    ]
    return {"role": message.role, "content": "\n".join([*([message.text] if message.text else []), *calls])}
