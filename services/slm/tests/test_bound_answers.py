"""Answers that are bound to a JSON schema or to tools. The bundled model proves the path, not the wit."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from tests.test_chat import ANSWER, QUESTION, ask, refused, stream

OPEN_SESSION = {
    "type": "function",
    "function": {
        "name": "open_session",
        "description": "Opens a session.",
        "parameters": {
            "type": "object",
            "properties": {
                "persona": {"enum": ["clerk", "poet"]},
                "turns": {"type": "integer", "minimum": 1, "maximum": 9},
                "note": {"$ref": "#/$defs/note"},
            },
            "required": ["persona", "turns", "note"],
            "additionalProperties": False,
            "$defs": {"note": {"type": "string", "maxLength": 12}},
        },
    },
}
CLOSE = {"type": "function", "function": {"name": "close"}}


def taking(parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool with these parameters."""
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def named(name: str) -> dict[str, Any]:
    """The choice of the tool with this name."""
    return {"type": "function", "function": {"name": name}}


def form(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **fields}}


BOUND_SCHEMAS = [
    {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False},
    {"enum": ["red", "green"]},
    {"type": "string", "pattern": "^[a-c]{3}-[0-9]$"},
    {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    {"type": "integer", "minimum": 10, "maximum": 20},
    {"type": "string", "format": "date"},
    {"anyOf": [{"const": "a"}, {"type": ["null", "boolean"]}]},
    {"$ref": "#/$defs/leaf", "$defs": {"leaf": {"type": "array", "prefixItems": [{"const": 1}], "items": False}}},
]


@pytest.mark.parametrize("schema", BOUND_SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_the_answer_is_what_the_schema_says(client: httpx.Client, schema: dict[str, Any], temperature: float) -> None:
    choice = ask(client, response_format=form(schema), temperature=temperature, seed=3, max_tokens=200)["choices"][0]
    assert choice["finish_reason"] == "stop"
    Draft202012Validator(schema).validate(json.loads(choice["message"]["content"]))


def test_the_free_model_would_not_have_said_that(client: httpx.Client) -> None:
    """The positive control: without the schema the same question is answered in prose."""
    with pytest.raises(ValueError):
        json.loads(ask(client)["choices"][0]["message"]["content"])


def test_json_object_is_an_object(client: httpx.Client) -> None:
    # Any object is allowed, so a tiny model may never close it: what there is must begin one.
    content = ask(client, response_format={"type": "json_object"}, max_tokens=30)["choices"][0]["message"]["content"]
    assert content.startswith("{")


def test_a_stream_is_bound_as_well(client: httpx.Client) -> None:
    chunks = stream(client, response_format=form(BOUND_SCHEMAS[2]))
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    Draft202012Validator(BOUND_SCHEMAS[2]).validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "place", "part"),
    [
        ({"type": "nonsense"}, "type", "is not valid"),
        ({"properties": {"a": {"type": "foo"}}}, "properties.a.type", "is not valid"),
        ({"$ref": "#/$defs/absent"}, "$ref", "does not exist in the schema"),
        ({"$ref": "https://example.com/x"}, "$ref", "outside of the schema"),
        ({"type": "string", "pattern": "("}, "pattern", "is not a 'regex'"),
        ({"type": "string", "pattern": "(?=x)"}, "pattern", "looks around"),
        ({"type": "string", "format": "nope"}, "format", "is unknown"),
        ({"not": {}}, "not", "can't bind an answer"),
        ({"if": {}}, "if", "can't bind an answer"),
        ({"items": {"oneOf": [{}]}}, "items.oneOf", "can't bind an answer"),
        ({"properties": {"a": {"x-guidance": {"lenient": True}}}}, "properties.a.x-guidance", "can't bind an answer"),
        ({"minLength": -1}, "minLength", "less than the minimum"),
    ],
)
def test_a_schema_that_would_bind_nothing_is_refused(
    client: httpx.Client, schema: dict[str, Any], place: str, part: str
) -> None:
    """llama.cpp ignores a schema that does not compile: each of these would have been answered in prose."""
    error = refused(client, 400, response_format=form(schema))
    assert (error["param"], error["code"]) == (f"response_format.json_schema.schema.{place}", "invalid_schema")
    assert part in error["message"]


def test_a_schema_that_only_the_engine_refuses_ends_in_an_error(client: httpx.Client) -> None:
    """What the list lets through and the engine does not compile is caught where the answer is checked."""
    impossible = {"type": "integer", "minimum": 3, "maximum": 2}
    response = client.post("/v1/chat/completions", json={**QUESTION, "response_format": form(impossible)})
    assert response.status_code >= 400
    assert response.json()["error"]["code"] == "unbound_answer"


def call_of(completion: dict[str, Any]) -> dict[str, Any]:
    choice = completion["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    return call["function"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "open_session"}}])
def test_a_tool_is_called_with_arguments_of_its_schema(client: httpx.Client, choice: Any) -> None:
    tools = [OPEN_SESSION] if choice == "required" else [CLOSE, OPEN_SESSION]
    function = call_of(ask(client, tools=tools, tool_choice=choice, max_tokens=200))
    assert function["name"] == "open_session"
    schema = OPEN_SESSION["function"]["parameters"]
    Draft202012Validator(schema).validate(json.loads(function["arguments"]))


def test_a_tool_without_parameters_is_called_with_none(client: httpx.Client) -> None:
    choice = {"type": "function", "function": {"name": "close"}}
    function = call_of(ask(client, tools=[OPEN_SESSION, CLOSE], tool_choice=choice, max_tokens=100))
    assert function == {"name": "close", "arguments": "{}"}


def test_a_streamed_call_is_put_together_as_the_openai_client_does(client: httpx.Client) -> None:
    chunks = stream(client, tools=[OPEN_SESSION], tool_choice="required", max_tokens=200)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": None}
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert {call["index"] for call in calls} == {0}
    assert [call["id"] for call in calls if "id" in call] == [calls[0]["id"]]
    assert calls[0]["function"] == {"name": "open_session", "arguments": ""}
    arguments = "".join(call["function"]["arguments"] for call in calls)
    Draft202012Validator(OPEN_SESSION["function"]["parameters"]).validate(json.loads(arguments))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(delta.get("content") for delta in deltas)


def test_the_model_may_answer_instead(client: httpx.Client) -> None:
    choice = ask(client, tools=[CLOSE], tool_choice="auto", max_tokens=40)["choices"][0]
    kinds = {"tool_calls": "tool_calls" in choice["message"], "text": bool(choice["message"]["content"])}
    assert sorted(kinds.values()) == [False, True]


def test_none_is_none(client: httpx.Client) -> None:
    assert ask(client, tools=[CLOSE], tool_choice="none")["choices"][0]["message"]["content"] == ANSWER


def test_a_cut_off_call_says_so(client: httpx.Client) -> None:
    choice = ask(client, tools=[OPEN_SESSION], tool_choice="required", max_tokens=20)["choices"][0]
    assert choice["finish_reason"] == "length"


def test_results_of_tools_are_read(client: httpx.Client) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "close", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Close it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "closed"},
        {"role": "user", "content": "What is a session?"},
    ]
    shorter = ask(client, messages=[messages[0], messages[3]], max_tokens=1)["usage"]["prompt_tokens"]
    assert ask(client, messages=messages, max_tokens=1)["usage"]["prompt_tokens"] > shorter + 10


@pytest.mark.parametrize(
    ("fields", "parameter", "part"),
    [
        ({"tools": [CLOSE, CLOSE]}, "tools.1.function.name", "is there twice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "match pattern"),
        ({"tools": [taking({"type": "array"})]}, "tools.0.function.parameters.type", "an object"),
        ({"tools": [taking({"type": "object", "not": {}})]}, "tools.0.function.parameters.not", "can't bind"),
        ({"tool_choice": "required"}, "tool_choice", "there is no tool"),
        ({"tools": [CLOSE], "tool_choice": named("x")}, "tool_choice.function.name", "not among the tools"),
        ({"tools": [CLOSE], "response_format": {"type": "json_object"}}, "response_format", "not both"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "tool_call_id is required"),
        ({"messages": [{"role": "user"}]}, "messages.0", "content is required"),
    ],
)
def test_a_wrong_tool_is_named(client: httpx.Client, fields: dict[str, Any], parameter: str, part: str) -> None:
    error = refused(client, 400, **fields)
    assert error["param"] == parameter
    assert part in error["message"]
