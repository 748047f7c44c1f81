"""Which JSON schemas can bind an answer: checked before the model is asked, because its grammar engine would ignore others.

llama.cpp compiles `%json` grammars with llguidance, and a schema that does not compile leaves the answer unbound with
no word to the caller (seen in xllamacpp 2026.10.11549). So what is let through is a list of what is known to compile, and
what came out is checked again. Source: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from somagent_slm.errors import ApiError

_COMMENTS = {"$schema", "$id", "title", "description", "default", "examples", "$comment"}
_BINDING = {
    *("type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions"),
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    *("items", "prefixItems", "minItems", "maxItems"),
    *("minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_DEEPEST = 32
# Groups that look around or capture by name, and references back: the engine's regular expressions have none.
_BEYOND_REGULAR = re.compile(r"\(\?(?!:)|\\[1-9]|\\k<")


def check_schema(schema: dict[str, Any], parameter: str) -> None:
    """Raises ApiError 400 that names the place in the schema, its value and what to do."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = ".".join([parameter, *map(str, error.absolute_path)])
        raise _refused(place, f"{error.message}; see https://json-schema.org/draft/2020-12") from error
    for place, part in _parts(schema, parameter, 0):
        _check_part(part, place, schema)


def violation(schema: dict[str, Any], text: str) -> str | None:
    """What in `text` is not as the schema says; None when all is."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"the answer is not JSON: {error}"
    problem = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    return None if problem is None else problem.message[:200]


def _parts(schema: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and every schema within it, with their places."""
    if not isinstance(schema, dict):
        return
    if depth > _DEEPEST:
        raise _refused(place, f"the schema is nested deeper than {_DEEPEST}; flatten it")
    yield place, schema
    for key in _MAPS:
        for name, part in schema.get(key, {}).items():
            yield from _parts(part, f"{place}.{key}.{name}", depth + 1)
    for key in _LISTS:
        for index, part in enumerate(schema.get(key, [])):
            yield from _parts(part, f"{place}.{key}.{index}", depth + 1)
    for key in _SINGLE:
        yield from _parts(schema.get(key), f"{place}.{key}", depth + 1)


def _check_part(part: dict[str, Any], place: str, root: dict[str, Any]) -> None:
    for keyword in part:
        if keyword not in _BINDING | _COMMENTS:
            raise _refused(f"{place}.{keyword}", f"{keyword} can't bind an answer; use {', '.join(sorted(_BINDING))}")
    if (form := part.get("format")) is not None and form not in _FORMATS:
        raise _refused(f"{place}.format", f"format {form!r} is unknown; use one of {', '.join(sorted(_FORMATS))}")
    if (pattern := part.get("pattern")) is not None:
        _check_pattern(pattern, f"{place}.pattern")
    if (reference := part.get("$ref")) is not None:
        _check_reference(reference, f"{place}.$ref", root)


def _check_pattern(pattern: str, place: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refused(place, f"{pattern!r} is not a regular expression: {error}") from error
    if _BEYOND_REGULAR.search(pattern):
        raise _refused(place, f"{pattern!r} looks around or refers back, which can't bind an answer; write it without")


def _check_reference(reference: str, place: str, root: dict[str, Any]) -> None:
    target: Any = root
    if not reference.startswith("#"):
        raise _refused(place, f"{reference!r} is outside of the schema; copy it to $defs")
    for step in filter(None, reference[1:].split("/")):
        target = target.get(step) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise _refused(place, f"{reference!r} does not exist in the schema; define it under $defs")


def _refused(place: str, message: str) -> ApiError:
    return ApiError(400, f"{place}: {message}", code="invalid_schema", parameter=place)
