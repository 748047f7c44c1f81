"""The HTTP face: an ASGI application with the calls of Qdrant's REST API that we serve."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import qdrant_edge as edge
from python_multipart import MultipartParser
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from somagent_vectors import API_VERSION, points, queries
from somagent_vectors.access import Access, Right, presented_key
from somagent_vectors.catalog import Catalog
from somagent_vectors.collection import Collection
from somagent_vectors.errors import QdrantError, bad_json, not_found, unsupported, wrong_input
from somagent_vectors.fields import Json, point_ids, read, typed
from somagent_vectors.metrics import Metrics
from somagent_vectors.schema import index_of, schema_of, settings_of
from somagent_vectors.settings import Settings

Handler = Callable[["Call"], Awaitable[Any]]
RETRY_SECONDS = "1"


@dataclasses.dataclass
class Call:
    """A request that was admitted, as its handler sees it."""

    request: Request
    catalog: Catalog
    body_limit: int
    snapshot_limit: int

    @property
    def name(self) -> str:
        return str(self.request.path_params["collection"])

    @property
    def collection(self) -> Collection:
        return self.catalog.get(self.name)

    @property
    def wait(self) -> bool:
        """Whether the answer comes only when the write is on the disk. Qdrant's default is not to wait."""
        return self.flag("wait", default=False)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.request.query_params.get(name, str(default)).lower()
        if value not in ("true", "false"):
            raise wrong_input(f"query parameter {name} is {value!r}; send true or false")
        return value == "true"

    async def json(self) -> Any:
        body = await _limited(self.request.stream(), self.body_limit)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise bad_json(str(error)) from error


class Api:
    """The routes; `application` is what a server runs."""

    def __init__(self, settings: Settings, catalog: Catalog, access: Access, healthy: Callable[[], bool]) -> None:
        self._healthy = healthy
        self._settings = settings
        self._catalog = catalog
        self._access = access
        self._metrics = Metrics()
        self._present = 0
        self.application = Starlette(
            routes=[*self._open_routes(), *self._guarded_routes()], exception_handlers={404: _no_route, 405: _no_method}
        )

    def _open_routes(self) -> list[Route]:
        return [
            Route("/", self._title, methods=["GET"]),
            Route("/healthz", self._alive, methods=["GET"]),
            Route("/livez", self._alive, methods=["GET"]),
            Route("/readyz", self._ready, methods=["GET"]),
        ]

    def _guarded_routes(self) -> list[Route]:
        return [
            Route(path, self._guard(path, right, handler), methods=[method])
            for method, path, right, handler in _routes(self._report)
        ]

    def _guard(self, path: str, right: Right, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            started = time.perf_counter()
            self._present += 1
            try:
                response = await self._answer(request, right, handler, started)
            finally:
                self._present -= 1
            self._metrics.answered(request.method, path, response.status_code, time.perf_counter() - started)
            return response

        return guarded

    async def _answer(self, request: Request, needed: Right, handler: Handler, started: float) -> Response:
        held = self._access.right(request.headers)
        if held is Right.NONE:
            return _refused(request)
        try:
            if needed is Right.WRITE and held is not Right.WRITE:
                raise QdrantError(403, "Forbidden: Global manage access is required")
            if self._present > self._settings.requests:
                raise QdrantError(429, f"Too many requests: {self._settings.requests} are being answered; try again")
            settings = self._settings
            result = await handler(Call(request, self._catalog, settings.body_limit, settings.snapshot_limit))
            if isinstance(result, Response):
                return result
            return _json(200, {"result": result, "status": "ok", "time": time.perf_counter() - started})
        except QdrantError as error:
            return _error(error, started)

    async def _title(self, _: Request) -> Response:
        return _json(200, {"title": "qdrant - vector search engine", "version": API_VERSION})

    async def _alive(self, _: Request) -> Response:
        return PlainTextResponse("healthz check passed")

    async def _ready(self, _: Request) -> Response:
        if not self._healthy():
            return PlainTextResponse("some shards are not ready", 503)
        return PlainTextResponse("all shards are ready")

    async def _report(self, call: Call) -> Response:
        return Response(self._metrics.text(call.catalog.collections), media_type="text/plain; version=0.0.4")


def _routes(report: Handler) -> list[tuple[str, str, Right, Handler]]:
    one = "/collections/{collection}"
    read_, write = Right.READ, Right.WRITE
    return [
        ("GET", "/metrics", read_, report),
        ("GET", "/collections", read_, _list_collections),
        ("GET", one, read_, _describe),
        ("PUT", one, write, _create),
        ("PATCH", one, write, _change),
        ("DELETE", one, write, _drop),
        ("GET", f"{one}/exists", read_, _exists),
        ("PUT", f"{one}/index", write, _create_index),
        ("DELETE", f"{one}/index/{{field}}", write, _delete_index),
        ("PUT", f"{one}/points", write, _upsert),
        ("POST", f"{one}/points", read_, _retrieve),
        ("GET", f"{one}/points/{{id}}", read_, _retrieve_one),
        ("POST", f"{one}/points/delete", write, _delete_points),
        ("POST", f"{one}/points/payload", write, _set_payload),
        ("PUT", f"{one}/points/payload", write, _overwrite_payload),
        ("POST", f"{one}/points/payload/delete", write, _delete_payload),
        ("POST", f"{one}/points/payload/clear", write, _clear_payload),
        ("PUT", f"{one}/points/vectors", write, _update_vectors),
        ("POST", f"{one}/points/batch", write, _batch),
        ("POST", f"{one}/points/scroll", read_, _scroll),
        ("POST", f"{one}/points/count", read_, _count),
        ("POST", f"{one}/points/query", read_, _query),
        ("POST", f"{one}/points/query/batch", read_, _query_batch),
        ("POST", f"{one}/facet", read_, _facet),
        ("GET", f"{one}/snapshots", read_, _list_snapshots),
        ("POST", f"{one}/snapshots", write, _create_snapshot),
        ("PUT", f"{one}/snapshots/recover", write, _recover),
        ("POST", f"{one}/snapshots/upload", write, _upload),
        ("GET", f"{one}/snapshots/{{snapshot}}", write, _download),
        ("DELETE", f"{one}/snapshots/{{snapshot}}", write, _delete_snapshot),
        *((method, path, read_, _absent(what)) for method, path, what in _ABSENT),
    ]


_ABSENT = [
    ("GET", "/telemetry", "telemetry"),
    ("GET", "/cluster", "distributed mode"),
    ("GET", "/aliases", "an alias of a collection"),
    ("POST", "/collections/aliases", "an alias of a collection"),
    ("GET", "/snapshots", "a snapshot of the whole storage"),
    ("POST", "/snapshots", "a snapshot of the whole storage"),
    ("GET", "/collections/{collection}/aliases", "an alias of a collection"),
    ("GET", "/collections/{collection}/cluster", "distributed mode"),
    ("PUT", "/collections/{collection}/shards", "a shard key"),
    ("POST", "/collections/{collection}/points/query/groups", "grouping"),
    ("POST", "/collections/{collection}/points/vectors/delete", "deletion of single vectors"),
    *(
        ("POST", f"/collections/{{collection}}/points/{kind}", f"points/{kind}")
        for kind in ("search", "search/batch", "search/groups", "recommend", "recommend/batch", "discover")
    ),
]


def _absent(what: str) -> Handler:
    async def absent(_: Call) -> Any:
        raise unsupported(what, "use points/query for searches, the server renderer for the rest")

    return absent


# Collections


async def _list_collections(call: Call) -> Json:
    return {"collections": [{"name": collection.name} for collection in call.catalog.collections]}


async def _describe(call: Call) -> Json:
    return call.collection.describe()


async def _create(call: Call) -> bool:
    await call.catalog.create(call.name, schema_of(await call.json()))
    return True


async def _change(call: Call) -> bool:
    await call.collection.change_settings(settings_of(await call.json()))
    return True


async def _drop(call: Call) -> bool:
    return await call.catalog.delete(call.name)


async def _exists(call: Call) -> Json:
    return {"exists": call.catalog.find(call.name) is not None}


async def _create_index(call: Call) -> Json:
    collection = call.collection
    parts = read(await call.json(), "the request", required=("field_name", "field_schema"))
    field = typed(parts["field_name"], str, "field_name")
    operation = edge.UpdateOperation.create_field_index(field, index_of(parts["field_schema"]))
    return await _write(call, collection, [operation])


async def _delete_index(call: Call) -> Json:
    operation = edge.UpdateOperation.delete_field_index(call.request.path_params["field"])
    return await _write(call, call.collection, [operation])


# Points


async def _upsert(call: Call) -> Json:
    collection = call.collection
    return await _write(call, collection, [points.upsert(await call.json(), collection.schema)])


async def _delete_points(call: Call) -> Json:
    return await _write(call, call.collection, [points.delete(await call.json())], purge=True)


async def _set_payload(call: Call) -> Json:
    return await _write(call, call.collection, [points.set_payload(await call.json())])


async def _overwrite_payload(call: Call) -> Json:
    return await _write(call, call.collection, [points.overwrite_payload(await call.json())])


async def _delete_payload(call: Call) -> Json:
    return await _write(call, call.collection, [points.delete_payload(await call.json())], purge=True)


async def _clear_payload(call: Call) -> Json:
    return await _write(call, call.collection, [points.clear_payload(await call.json())], purge=True)


async def _update_vectors(call: Call) -> Json:
    collection = call.collection
    return await _write(call, collection, [points.update_vectors(await call.json(), collection.schema)])


async def _batch(call: Call) -> list[Json]:
    collection = call.collection
    items = typed(read(await call.json(), "the request", required=("operations",))["operations"], list, "operations")
    operations = [_operation(item, collection) for item in items]
    purge = any(kind.startswith(("delete", "clear")) for item in items for kind in item)
    answer = await _write(call, collection, operations, purge=purge)
    return [answer for _ in operations]


def _operation(body: Any, collection: Collection) -> Any:
    kinds: dict[str, Callable[[Any], Any]] = {
        "upsert": lambda value: points.upsert(value, collection.schema),
        "delete": points.delete,
        "set_payload": points.set_payload,
        "overwrite_payload": points.overwrite_payload,
        "delete_payload": points.delete_payload,
        "clear_payload": points.clear_payload,
        "update_vectors": lambda value: points.update_vectors(value, collection.schema),
    }
    parts = read(body, "an operation", optional=tuple(kinds))
    if len(parts) != 1:
        raise bad_json(f"an operation names {len(parts)} kinds; send exactly one of {', '.join(kinds)}")
    ((kind, value),) = parts.items()
    return kinds[kind](value)


async def _write(call: Call, collection: Collection, operations: list[Any], *, purge: bool = False) -> Json:
    await collection.update(operations, wait=call.wait, purge=purge)
    return {"status": "completed" if call.wait else "acknowledged"}


async def _retrieve(call: Call) -> list[Json]:
    parts = read(await call.json(), "the request", required=("ids",), optional=("with_payload", "with_vector"))
    payload = queries.payload_selector(parts.get("with_payload", True))
    vector = queries.vector_selector(parts.get("with_vector", False))
    return call.collection.retrieve(point_ids(parts["ids"], "ids"), payload, vector)


async def _retrieve_one(call: Call) -> Json:
    identifier = points.id_from_path(call.request.path_params["id"])
    found = call.collection.retrieve([identifier], True, True)
    if not found:
        raise not_found(f"Point with id {points.id_to_json(identifier)} does not exists!")
    return found[0]


async def _scroll(call: Call) -> Json:
    return call.collection.scroll(queries.scroll_request(await call.json()))


async def _count(call: Call) -> Json:
    return {"count": call.collection.count(queries.count_request(await call.json()))}


async def _query(call: Call) -> Json:
    return _queried(call.collection, await call.json())


async def _query_batch(call: Call) -> list[Json]:
    searches = typed(read(await call.json(), "the request", required=("searches",))["searches"], list, "searches")
    return [_queried(call.collection, search) for search in searches]


def _queried(collection: Collection, body: Any) -> Json:
    request = queries.query_request(body, collection.schema, collection.vector)
    return {"points": collection.query(request)}


async def _facet(call: Call) -> Json:
    return {"hits": call.collection.facet(queries.facet_request(await call.json()))}


# Snapshots


async def _list_snapshots(call: Call) -> list[Json]:
    return call.catalog.snapshots.list(call.collection.name)


async def _create_snapshot(call: Call) -> Json:
    return await call.catalog.snapshots.create(call.collection)


async def _download(call: Call) -> Response:
    path = call.catalog.snapshots.path(call.collection.name, call.request.path_params["snapshot"])
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


async def _delete_snapshot(call: Call) -> bool:
    call.catalog.snapshots.delete(call.collection.name, call.request.path_params["snapshot"])
    return True


async def _recover(call: Call) -> bool:
    # With one replica there is nobody whose data could be preferred.
    optional = ("priority", "checksum", "api_key")
    parts = read(await call.json(), "the request", required=("location",), optional=optional)
    snapshots = call.catalog.snapshots
    path = snapshots.located(typed(parts["location"], str, "location"))
    await call.catalog.recover(call.name, await snapshots.unpack(path, parts.get("checksum")))
    return True


async def _upload(call: Call) -> bool:
    snapshots = call.catalog.snapshots
    path = await snapshots.receive(_file_of(call.request, call.snapshot_limit))
    try:
        unpacked = await snapshots.unpack(path, call.request.query_params.get("checksum"))
        await call.catalog.recover(call.name, unpacked)
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    return True


async def _file_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The content of the part `snapshot` of a form, as it comes."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise wrong_input("the upload is no multipart/form-data; send the file as its part `snapshot`")
    parts: list[bytes] = []
    parser = MultipartParser(options[b"boundary"], {"on_part_data": lambda data, at, end: parts.append(data[at:end])})
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise QdrantError(413, f"Payload too large: the snapshot is larger than {limit} bytes")
        parser.write(chunk)
        for part in parts:
            yield part
        parts.clear()
    parser.finalize()


async def _limited(stream: AsyncIterator[bytes], limit: int) -> bytes:
    body = bytearray()
    try:
        async for part in stream:
            body.extend(part)
            if len(body) > limit:
                raise QdrantError(413, f"Payload too large: JSON payload is larger than allowed (limit: {limit} bytes)")
    except ClientDisconnect as error:
        raise wrong_input("the connection ended before the body did") from error
    return bytes(body)


# Answers


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _error(error: QdrantError, started: float) -> Response:
    headers = {"retry-after": RETRY_SECONDS} if error.status == 429 else None
    body = {"status": {"error": error.message}, "time": time.perf_counter() - started}
    return _json(error.status, body, headers)


def _refused(request: Request) -> Response:
    """As Qdrant answers: text, no JSON."""
    if presented_key(request.headers) is None:
        return PlainTextResponse("Must provide an API key or an Authorization bearer token", 401)
    return PlainTextResponse("Invalid API key or JWT", 401)


async def _no_route(request: Request, _: Exception) -> Response:
    return _error(not_found(f"there is no call {request.method} {request.url.path}"), time.perf_counter())


async def _no_method(request: Request, _: Exception) -> Response:
    message = f"Method not allowed: {request.method} {request.url.path}"
    return _error(QdrantError(405, message), time.perf_counter())
