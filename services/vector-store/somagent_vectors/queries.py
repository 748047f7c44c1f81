"""Queries: JSON to the engine's requests. Source: https://api.qdrant.tech/api-reference/search/query-points"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from somagent_vectors.errors import bad_json, unsupported, wrong_input
from somagent_vectors.fields import Json, choice, natural, point_id, read, strings, typed
from somagent_vectors.filters import optional_filter
from somagent_vectors.points import vector_of
from somagent_vectors.schema import Schema

MOST_RESULTS = 10_000
_QUERY = ("query", "using", "filter", "params", "score_threshold", "limit")
_PARAMS = ("hnsw_ef", "exact", "quantization", "indexed_only")
_DIRECTIONS = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}

Lookup = Callable[[Any, str], Any]
"""Gives the stored vector of a point: its id, the vector's name."""


def query_request(body: Any, schema: Schema, lookup: Lookup) -> edge.QueryRequest:
    parts = read(body, "the query", optional=("prefetch", *_QUERY, "offset", "with_payload", "with_vector"))
    reader = _Reader(schema, lookup)
    query, condition = reader.query(parts)
    prefetches = reader.prefetches(parts.get("prefetch"))
    if prefetches and query is None:
        raise bad_json("the query has a prefetch and no `query`; say how its results are ranked")
    return edge.QueryRequest(
        limit=natural(parts.get("limit", 10), "limit", 1, MOST_RESULTS),
        offset=natural(parts.get("offset", 0), "offset"),
        query=query,
        prefetches=prefetches,
        filter=condition,
        score_threshold=_score(parts),
        params=params_of(parts.get("params")),
        with_payload=payload_selector(parts.get("with_payload", False)),
        with_vector=vector_selector(parts.get("with_vector", False)),
    )


def scroll_request(body: Any) -> edge.ScrollRequest:
    optional = ("offset", "limit", "filter", "with_payload", "with_vector", "order_by")
    parts = read(body, "the request", optional=optional)
    order = order_by(parts["order_by"]) if "order_by" in parts else None
    if order is not None and "offset" in parts:
        raise wrong_input(
            "Cannot use an `offset` when using `order_by`. The alternative for paging is to use `order_by.start_from`"
        )
    return edge.ScrollRequest(
        offset=point_id(parts["offset"]) if "offset" in parts else None,
        limit=natural(parts.get("limit", 10), "limit", 1, MOST_RESULTS),
        filter=optional_filter(parts.get("filter")),
        with_payload=payload_selector(parts.get("with_payload", True)),
        with_vector=vector_selector(parts.get("with_vector", False)),
        order_by=order,
    )


def count_request(body: Any) -> edge.CountRequest:
    parts = read(body, "the request", optional=("filter", "exact"))
    return edge.CountRequest(
        exact=typed(parts.get("exact", True), bool, "exact"), filter=optional_filter(parts.get("filter"))
    )


def facet_request(body: Any) -> edge.FacetRequest:
    parts = read(body, "the request", required=("key",), optional=("filter", "limit", "exact"))
    return edge.FacetRequest(
        key=typed(parts["key"], str, "key"),
        limit=natural(parts.get("limit", 10), "limit", 1, MOST_RESULTS),
        exact=typed(parts.get("exact", False), bool, "exact"),
        filter=optional_filter(parts.get("filter")),
    )


def order_by(body: Any) -> edge.OrderBy:
    parts = read(
        {"key": body} if isinstance(body, str) else body,
        "order_by",
        required=("key",),
        optional=("direction", "start_from"),
    )
    direction = choice(parts["direction"], _DIRECTIONS, "order_by.direction") if "direction" in parts else None
    return edge.OrderBy(typed(parts["key"], str, "order_by.key"), direction, parts.get("start_from"))


def payload_selector(body: Any) -> Any:
    if isinstance(body, bool):
        return body
    if isinstance(body, list):
        return strings(body, "with_payload")
    parts = read(body, "with_payload", optional=("include", "exclude"))
    if len(parts) != 1:
        raise bad_json("with_payload needs exactly one of `include` and `exclude`")
    ((kind, keys),) = parts.items()
    factory = edge.PayloadSelector.Include if kind == "include" else edge.PayloadSelector.Exclude
    return factory(strings(keys, f"with_payload.{kind}"))


def vector_selector(body: Any) -> bool | list[str]:
    return body if isinstance(body, bool) else strings(body, "with_vector")


def params_of(body: Any) -> edge.SearchParams | None:
    if body is None:
        return None
    parts = read(body, "params", optional=_PARAMS)
    if "quantization" in parts:
        options = read(parts["quantization"], "params.quantization", optional=("ignore", "rescore", "oversampling"))
        parts["quantization"] = edge.QuantizationSearchParams(**options)
    return edge.SearchParams(**parts)


class _Reader:
    """Reads the queries of one request."""

    def __init__(self, schema: Schema, lookup: Lookup) -> None:
        self._schema = schema
        self._lookup = lookup

    def prefetches(self, body: Any) -> list[edge.Prefetch] | None:
        if body is None:
            return None
        return [self._prefetch(item) for item in (body if isinstance(body, list) else [body])]

    def query(self, parts: Json) -> tuple[Any, edge.Filter | None]:
        """The query and its filter. A point is not its own neighbour, so that one named by id is left out."""
        condition = optional_filter(parts.get("filter"))
        body, using = parts.get("query"), typed(parts.get("using", ""), str, "using")
        if isinstance(body, dict) and "nearest" in body:
            nearest = read(body, "query", required=("nearest",), optional=("mmr",))
            vector, itself = self._vector(nearest["nearest"], using)
            query = self._mmr(vector, using, nearest["mmr"], parts) if "mmr" in nearest else _nearest(vector, using)
            return query, _without(itself, condition)
        if isinstance(body, dict) and "indices" not in body:
            return _ranking(body), condition
        if body is None:
            return None, condition
        vector, itself = self._vector(body, using)
        return _nearest(vector, using), _without(itself, condition)

    def _prefetch(self, body: Any) -> edge.Prefetch:
        parts = read(body, "a prefetch", optional=("prefetch", *_QUERY))
        query, condition = self.query(parts)
        return edge.Prefetch(
            limit=natural(parts.get("limit", 10), "limit of a prefetch", 1, MOST_RESULTS),
            query=query,
            prefetches=self.prefetches(parts.get("prefetch")),
            params=params_of(parts.get("params")),
            filter=condition,
            score_threshold=_score(parts),
        )

    def _vector(self, body: Any, using: str) -> tuple[Any, Any]:
        if isinstance(body, (int, str)) and not isinstance(body, bool):
            itself = point_id(body)
            return self._lookup(itself, using), itself
        return vector_of(body, using, self._schema), None

    def _mmr(self, vector: Any, using: str, body: Any, parts: Json) -> edge.Mmr:
        options = read(body, "query.mmr", optional=("diversity", "candidates_limit"))
        diversity = float(typed(options.get("diversity", 0.5), (int, float), "query.mmr.diversity"))
        candidates = natural(
            options.get("candidates_limit", parts.get("limit", 10)), "candidates_limit", 1, MOST_RESULTS
        )
        return edge.Mmr(vector, 1 - diversity, candidates, using or None)


def _nearest(vector: Any, using: str) -> edge.Query:
    return edge.Query.Nearest(vector, using or None)


def _without(itself: Any, condition: edge.Filter | None) -> edge.Filter | None:
    if itself is None:
        return condition
    others = edge.Filter(must_not=[edge.HasIdCondition({itself})])
    return others if condition is None else edge.Filter(must=[condition, others])


def _ranking(body: Json) -> Any:
    if "fusion" in body:
        kinds = {"rrf": lambda: edge.Fusion.Rrf(2), "dbsf": edge.Fusion.Dbsf}
        return choice(read(body, "query", required=("fusion",))["fusion"], kinds, "query.fusion")()
    if "rrf" in body:
        options = read(read(body, "query", required=("rrf",))["rrf"], "query.rrf", optional=("k", "weights"))
        return edge.Fusion.Rrf(natural(options.get("k", 2), "query.rrf.k", 1), options.get("weights"))
    if "order_by" in body:
        return order_by(read(body, "query", required=("order_by",))["order_by"])
    if "sample" in body:
        return choice(
            read(body, "query", required=("sample",))["sample"], {"random": edge.Sample.Random}, "query.sample"
        )
    raise unsupported(f"a query by {', '.join(body) or 'nothing'}", "use nearest, fusion, rrf, order_by or sample")


def _score(parts: Json) -> float | None:
    if "score_threshold" not in parts:
        return None
    return float(typed(parts["score_threshold"], (int, float), "score_threshold"))
