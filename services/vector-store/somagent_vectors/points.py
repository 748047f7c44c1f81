"""Points: JSON to the engine's objects and back."""

from __future__ import annotations

import uuid
from typing import Any

import qdrant_edge as edge

from somagent_vectors.errors import bad_json, wrong_input
from somagent_vectors.fields import Json, point_id, point_ids, read, strings, typed
from somagent_vectors.filters import filter_of, optional_filter
from somagent_vectors.schema import Schema

_MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


def upsert(body: Any, schema: Schema) -> edge.UpdateOperation:
    parts = read(body, "the request", optional=("points", "batch", "update_filter", "update_mode"))
    if ("points" in parts) == ("batch" in parts):
        raise bad_json("the request needs exactly one of `points` and `batch`")
    rows = typed(parts["points"], list, "points") if "points" in parts else _rows(parts["batch"])
    mode = parts.get("update_mode", "upsert")
    if mode not in _MODES:
        raise bad_json(f"update_mode is {mode!r}; send one of {', '.join(_MODES)}")
    return edge.UpdateOperation.upsert_points(
        [_point(row, schema) for row in rows],
        condition=optional_filter(parts.get("update_filter"), "update_filter"),
        update_mode=_MODES[mode],
    )


def _rows(body: Any) -> list[Json]:
    parts = read(body, "batch", required=("ids", "vectors"), optional=("payloads",))
    ids = typed(parts["ids"], list, "batch.ids")
    vectors = parts["vectors"]
    if isinstance(vectors, dict):
        vectors = [{name: vectors[name][at] for name in vectors} for at in range(len(ids))]
    payloads = parts.get("payloads", [None] * len(ids))
    if not len(ids) == len(vectors) == len(payloads):
        raise wrong_input(f"batch has {len(ids)} ids, {len(vectors)} vectors and {len(payloads)} payloads")
    return [
        {"id": each, "vector": vector, "payload": payload}
        for each, vector, payload in zip(ids, vectors, payloads, strict=True)
    ]


def _point(body: Any, schema: Schema) -> edge.Point:
    parts = read(body, "a point", required=("id", "vector"), optional=("payload",))
    payload = typed(parts.get("payload", {}), dict, "payload of a point")
    return edge.Point(point_id(parts["id"]), vectors_of(parts["vector"], schema), payload)


def vectors_of(body: Any, schema: Schema) -> Any:
    """The vectors of a point, checked against the schema: what the engine logs must be what it can apply."""
    if isinstance(body, list):
        return vector_of(body, "", schema)
    named = typed(body, dict, "vector of a point")
    return {name: vector_of(value, name, schema) for name, value in named.items()}


def vector_of(body: Any, name: str, schema: Schema) -> Any:
    """One vector: a list of numbers, a list of such lists, or a sparse one with `indices` and `values`."""
    if name in schema.sparse:
        return _sparse(body, name)
    if name not in schema.dense:
        raise wrong_input(f"Not existing vector name error: {name}")
    params = schema.dense[name]
    rows = typed(body, list, f"vector {name!r}")
    multiple = params.get("multivector_config") is not None
    if not multiple and rows and isinstance(rows[0], list):
        raise wrong_input(f"vector {name!r} is a list of vectors, the collection has one vector per point")
    for row in rows if multiple else [rows]:
        if len(row) != params["size"]:
            raise wrong_input(f"Vector dimension error: expected dim: {params['size']}, got {len(row)}")
        if not all(type(value) in (float, int) for value in row):
            raise bad_json(f"vector {name!r} has something else than numbers")
    return rows


def _sparse(body: Any, name: str) -> edge.SparseVector:
    parts = read(body, f"vector {name!r}", required=("indices", "values"))
    indices, values = (typed(parts[key], list, f"{key} of vector {name!r}") for key in ("indices", "values"))
    if len(indices) != len(values) or len(set(indices)) != len(indices):
        raise wrong_input(f"sparse vector {name!r} needs as many values as indices, each index once")
    return edge.SparseVector(indices, values)


def delete(body: Any) -> edge.UpdateOperation:
    ids, condition = _selection(body, "points", ())
    if ids is not None:
        return edge.UpdateOperation.delete_points(ids)
    return edge.UpdateOperation.delete_points_by_filter(condition)


def set_payload(body: Any) -> edge.UpdateOperation:
    ids, condition = _selection(body, "points", ("payload", "key"))
    payload = typed(body.get("payload"), dict, "payload")
    if ids is not None:
        return edge.UpdateOperation.set_payload(ids, payload, body.get("key"))
    return edge.UpdateOperation.set_payload_by_filter(condition, payload, body.get("key"))


def overwrite_payload(body: Any) -> edge.UpdateOperation:
    ids, condition = _selection(body, "points", ("payload", "key"))
    payload = typed(body.get("payload"), dict, "payload")
    if ids is not None:
        return edge.UpdateOperation.overwrite_payload(ids, payload, body.get("key"))
    return edge.UpdateOperation.overwrite_payload_by_filter(condition, payload, body.get("key"))


def delete_payload(body: Any) -> edge.UpdateOperation:
    ids, condition = _selection(body, "points", ("keys",))
    keys = strings(body.get("keys"), "keys")
    if ids is not None:
        return edge.UpdateOperation.delete_payload(ids, keys)
    return edge.UpdateOperation.delete_payload_by_filter(condition, keys)


def clear_payload(body: Any) -> edge.UpdateOperation:
    ids, condition = _selection(body, "points", ())
    if ids is not None:
        return edge.UpdateOperation.clear_payload(ids)
    return edge.UpdateOperation.clear_payload_by_filter(condition)


def update_vectors(body: Any, schema: Schema) -> edge.UpdateOperation:
    parts = read(body, "the request", required=("points",), optional=("update_filter",))
    rows = [read(row, "a point", required=("id", "vector")) for row in typed(parts["points"], list, "points")]
    return edge.UpdateOperation.update_vectors(
        [edge.PointVectors(point_id(row["id"]), vectors_of(row["vector"], schema)) for row in rows],
        condition=optional_filter(parts.get("update_filter"), "update_filter"),
    )


def _selection(body: Any, name: str, others: tuple[str, ...]) -> tuple[list[Any] | None, Any]:
    parts = read(body, "the request", optional=(name, "filter", *others))
    if (name in parts) == ("filter" in parts):
        raise bad_json(f"the request needs exactly one of `{name}` and `filter`")
    if name in parts:
        return point_ids(parts[name], name), None
    return None, filter_of(parts["filter"])


def id_to_json(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)


def id_from_path(text: str) -> int | uuid.UUID:
    return point_id(int(text) if text.isdecimal() else text)


def record_to_json(record: Any) -> Json:
    """A point as Qdrant shows it: what was not asked for is left out."""
    body: Json = {"id": id_to_json(record.id)}
    if isinstance(record, edge.ScoredPoint):
        body |= {"version": record.version, "score": record.score}
    if record.payload is not None:
        body["payload"] = record.payload
    if record.vector is not None:
        body["vector"] = _vector_to_json(record.vector)
    if record.order_value is not None:
        body["order_value"] = record.order_value
    return body


def _vector_to_json(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": vector.indices, "values": vector.values}
    if isinstance(vector, dict):
        return {name: _vector_to_json(value) for name, value in vector.items()}
    return vector
