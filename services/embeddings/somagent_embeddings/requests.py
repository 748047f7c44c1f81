"""Requests as OpenAI's embeddings API has them. Source: https://platform.openai.com/docs/api-reference/embeddings"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from somagent_slm.errors import ApiError

MOST_TEXTS = 2048
_FIELDS = ("model", "input", "encoding_format", "dimensions", "user")


@dataclass(frozen=True)
class EmbeddingRequest:
    texts: list[str]
    base64: bool


def parse_request(body: bytes, model: str, dimensions: int) -> EmbeddingRequest:
    """Raises ApiError 400 or 404 naming the field, its value and what is allowed."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON ({error})", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    for name in fields:
        if name not in _FIELDS:
            raise _invalid(name, f"{name} is not known; allowed: {', '.join(_FIELDS)}")
    if fields.get("model") != model:
        message = f"model is {fields.get('model')!r}; this worker serves {model!r}"
        raise ApiError(404, message, code="model_not_found", parameter="model")
    if fields.get("dimensions") not in (None, dimensions):
        raise _invalid("dimensions", f"dimensions is {fields['dimensions']}; the model has {dimensions}, leave it out")
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _invalid("encoding_format", f"encoding_format is {encoding!r}; allowed: float, base64")
    return EmbeddingRequest(_texts(fields.get("input")), encoding == "base64")


def _texts(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _invalid("input", "input is neither a string nor a list of strings; token ids are not taken")
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise _invalid("input", f"input has {len(texts)} texts; allowed: 1 to {MOST_TEXTS}")
    for position, text in enumerate(texts):
        if not text.strip():
            raise _invalid("input", f"input[{position}] is empty; leave it out")
    return texts


def _invalid(field: str, message: str) -> ApiError:
    return ApiError(400, message, code="invalid_value", parameter=field)
