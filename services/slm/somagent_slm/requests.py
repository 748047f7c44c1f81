"""What a chat completion request may hold, and the first thing that is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from somagent_slm.errors import ApiError
from somagent_slm.schema import check_schema


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class CalledFunction(_Strict):
    name: str
    arguments: str


class ToolCall(_Strict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("content is required, except of an assistant with tool_calls")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls belong to an assistant, not to {self.role}")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("tool_call_id is required of role tool, and of no other")
        return self

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Strict):
    include_usage: bool = False


class JsonSchema(_Strict):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_present(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required when type is json_schema")
        return self


class Function(_Strict):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "additionalProperties": False})
    strict: bool | None = None


class Tool(_Strict):
    type: Literal["function"]
    function: Function


class FunctionName(_Strict):
    name: str


class NamedTool(_Strict):
    type: Literal["function"]
    function: FunctionName


class ChatRequest(_Strict):
    """A request of `POST /v1/chat/completions`; numbers have the ranges of the OpenAI API."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    # Greedy unless asked otherwise: a tiny model wanders at the API's usual default of 1.
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0, le=4_294_967_294)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    # Accepted because clients send it; an answer has one call at most.
    parallel_tool_calls: bool | None = None
    n: Literal[1] = 1
    user: str | None = None

    @model_validator(mode="after")
    def _stop_is_short(self) -> ChatRequest:
        if isinstance(self.stop, list) and len(self.stop) > 4:
            raise ValueError(f"stop has {len(self.stop)} entries; give at most 4")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def callable_tools(self) -> list[Function]:
        """The functions that the answer may call."""
        functions = [tool.function for tool in self.tools or []]
        if self.tool_choice == "none":
            return []
        if isinstance(self.tool_choice, NamedTool):
            return [function for function in functions if function.name == self.tool_choice.function.name]
        return functions

    @property
    def must_call(self) -> bool:
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """What the text of the answer must be, where it must be JSON."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        return self.response_format.json_schema.schema_ if self.response_format.json_schema else {"type": "object"}


def parse_chat_request(body: bytes, models: Collection[str]) -> ChatRequest:
    """Raises ApiError 400 naming the first wrong field, or 404 when another model is asked for."""
    try:
        request = ChatRequest.model_validate(json.loads(body))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply; flatten it", code="invalid_json") from error
    except ValidationError as error:
        raise _first_error(error) from error
    if request.model not in models:
        raise ApiError(
            404,
            f"the model {request.model!r} does not exist here; ask for {' or '.join(map(repr, sorted(models)))}",
            code="model_not_found",
            parameter="model",
        )
    _check_tools(request)
    if request.response_format and request.response_format.json_schema:
        check_schema(request.response_format.json_schema.schema_, "response_format.json_schema.schema")
    return request


def _check_tools(request: ChatRequest) -> None:
    names = [tool.function.name for tool in request.tools or []]
    for index, tool in enumerate(request.tools or []):
        place = f"tools.{index}.function"
        if names.index(tool.function.name) != index:
            raise _wrong(f"{place}.name", f"{tool.function.name!r} is there twice; name each tool once")
        if tool.function.parameters.get("type") != "object":
            raise _wrong(f"{place}.parameters.type", 'the arguments of a tool are an object; set type to "object"')
        check_schema(tool.function.parameters, f"{place}.parameters")
    if request.tool_choice not in (None, "none") and not names:
        raise _wrong("tool_choice", "there is no tool to choose; give tools, or leave tool_choice out")
    if isinstance(request.tool_choice, NamedTool) and request.tool_choice.function.name not in names:
        chosen = request.tool_choice.function.name
        raise _wrong("tool_choice.function.name", f"{chosen!r} is not among the tools; choose one of {', '.join(names)}")
    if request.answer_schema is not None and request.callable_tools():
        raise _wrong("response_format", "an answer is bound by response_format or may call tools, not both; leave one out")


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(400, f"{field}: {message}", code="invalid_value", parameter=field)


def _first_error(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] == "missing" else f" (got {json.dumps(first['input'], default=str)[:80]})"
    return ApiError(
        400, f"{field or 'body'}: {first['msg']}{given}", code="invalid_value", parameter=field or None
    )
