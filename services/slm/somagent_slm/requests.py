"""What a chat completion request may hold, and the first thing that is wrong with one."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from somagent_slm.errors import ApiError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str
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

    def to_llama(self) -> dict[str, Any]:
        """The same request as llama.cpp's server takes it, always streaming, always with usage."""
        body: dict[str, Any] = {
            "messages": [{"role": _role(message.role), "content": message.text} for message in self.messages],
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        limit = self.max_completion_tokens or self.max_tokens
        optional = {
            "max_tokens": limit,
            "top_p": self.top_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "seed": self.seed,
            "stop": self.stop,
            "response_format": self.response_format and self.response_format.model_dump(by_alias=True, exclude_none=True),
        }
        body.update({key: value for key, value in optional.items() if value is not None})
        return body


def parse_chat_request(body: bytes, model_name: str) -> ChatRequest:
    """Raises ApiError 400 naming the first wrong field, or 404 when another model is asked for."""
    try:
        request = ChatRequest.model_validate(json.loads(body))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    except ValidationError as error:
        raise _first_error(error) from error
    if request.model != model_name:
        raise ApiError(
            404,
            f"the model {request.model!r} does not exist here; ask for {model_name!r}",
            code="model_not_found",
            parameter="model",
        )
    return request


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _first_error(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] == "missing" else f" (got {json.dumps(first['input'], default=str)[:80]})"
    return ApiError(
        400, f"{field or 'body'}: {first['msg']}{given}", code="invalid_value", parameter=field or None
    )
