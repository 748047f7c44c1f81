"""Filters: JSON to the engine's own conditions. Source: https://qdrant.tech/documentation/concepts/filtering/"""

from __future__ import annotations

from typing import Any

import numpy as np
import qdrant_edge as edge

from somagent_vectors.errors import bad_json
from somagent_vectors.fields import Json, natural, point_ids, read, typed

_CLAUSES = ("must", "should", "must_not", "min_should")
_FIELD = (
    "match",
    "range",
    "geo_bounding_box",
    "geo_radius",
    "values_count",
    "is_empty",
    "is_null",
)
_BOUNDS = ("gt", "gte", "lt", "lte")


def filter_of(body: Any, where: str = "filter") -> edge.Filter:
    clauses = read(body, where, optional=_CLAUSES)
    lists = {name: _conditions(clauses[name], f"{where}.{name}") for name in _CLAUSES[:3] if name in clauses}
    if "min_should" in clauses:
        lists["min_should"] = _min_should(clauses["min_should"], f"{where}.min_should")
    return edge.Filter(**lists)


def optional_filter(body: Any, where: str = "filter") -> edge.Filter | None:
    return None if body is None else filter_of(body, where)


def _conditions(body: Any, where: str) -> list[Any]:
    # A single condition needs no list around it.
    items = body if isinstance(body, list) else [body]
    return [_condition(item, where) for item in items]


def _min_should(body: Any, where: str) -> edge.MinShould:
    parts = read(body, where, required=("conditions", "min_count"))
    return edge.MinShould(_conditions(parts["conditions"], where), natural(parts["min_count"], f"{where}.min_count"))


def _condition(body: Any, where: str) -> Any:
    typed(body, dict, f"a condition of {where}")
    if "key" in body:
        return _field(body, where)
    if "has_id" in body:
        return edge.HasIdCondition(set(point_ids(read(body, where, required=("has_id",))["has_id"], f"{where}.has_id")))
    if "has_vector" in body:
        return edge.HasVectorCondition(typed(body["has_vector"], str, f"{where}.has_vector"))
    if "is_empty" in body:
        return edge.IsEmptyCondition(_key(body["is_empty"], f"{where}.is_empty"))
    if "is_null" in body:
        return edge.IsNullCondition(_key(body["is_null"], f"{where}.is_null"))
    if "nested" in body:
        nested = read(body["nested"], f"{where}.nested", required=("key", "filter"))
        return edge.NestedCondition(nested["key"], filter_of(nested["filter"], f"{where}.nested.filter"))
    return filter_of(body, where)


def _key(body: Any, where: str) -> str:
    return str(typed(read(body, where, required=("key",))["key"], str, f"{where}.key"))


def _field(body: Json, where: str) -> edge.FieldCondition:
    parts = read(body, f"a condition of {where}", required=("key",), optional=_FIELD)
    key = typed(parts["key"], str, f"{where}.key")
    where = f"{where}[{key}]"
    if len(parts) == 1:
        raise bad_json(f"{where} has no condition; add one of {', '.join(_FIELD)}")
    readers = {
        "match": _match,
        "range": _range,
        "geo_bounding_box": _box,
        "geo_radius": _circle,
        "values_count": _values_count,
        "is_empty": lambda value, place: typed(value, bool, place),
        "is_null": lambda value, place: typed(value, bool, place),
    }
    conditions = {name: readers[name](parts[name], f"{where}.{name}") for name in _FIELD if name in parts}
    return edge.FieldCondition(key=key, **conditions)


def _match(body: Any, where: str) -> Any:
    kinds = {
        "value": lambda value: edge.MatchValue(_engine_value(typed(value, (str, int, bool), where))),
        "any": lambda value: edge.MatchAny(_values(value, where)),
        "except": lambda value: edge.MatchExcept(_values(value, where)),
        "text": lambda value: edge.MatchText(typed(value, str, where)),
        "text_any": lambda value: edge.MatchTextAny(typed(value, str, where)),
        "phrase": lambda value: edge.MatchPhrase(typed(value, str, where)),
    }
    parts = read(body, where, optional=tuple(kinds))
    if len(parts) != 1:
        raise bad_json(f"{where} has {len(parts)} fields; send exactly one of {', '.join(kinds)}")
    ((kind, value),) = parts.items()
    return kinds[kind](value)


def _engine_value(value: str | int | bool) -> Any:
    """The engine's binding takes Python's True for the number 1, which matches nothing, and numpy's for itself."""
    return np.bool_(value) if isinstance(value, bool) else value


def _values(value: Any, where: str) -> list[str] | list[int]:
    return [typed(each, (str, int), f"an item of {where}") for each in typed(value, list, where)]


def _range(body: Any, where: str) -> Any:
    bounds = read(body, where, optional=_BOUNDS)
    if bounds and all(isinstance(value, str) for value in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**{name: float(typed(value, (int, float), where)) for name, value in bounds.items()})


def _values_count(body: Any, where: str) -> edge.ValuesCount:
    bounds = read(body, where, optional=_BOUNDS)
    return edge.ValuesCount(**{name: natural(value, where) for name, value in bounds.items()})


def _box(body: Any, where: str) -> edge.GeoBoundingBox:
    corners = read(body, where, required=("top_left", "bottom_right"))
    return edge.GeoBoundingBox(_place(corners["top_left"], where), _place(corners["bottom_right"], where))


def _circle(body: Any, where: str) -> edge.GeoRadius:
    parts = read(body, where, required=("center", "radius"))
    return edge.GeoRadius(_place(parts["center"], where), float(typed(parts["radius"], (int, float), where)))


def _place(body: Any, where: str) -> edge.GeoPoint:
    parts = read(body, where, required=("lon", "lat"))
    return edge.GeoPoint(*(float(typed(parts[name], (int, float), where)) for name in ("lon", "lat")))
