"""One collection: the engine's shard, its folder, and when what is written where.

All methods belong to one event loop. The engine keeps Python's global lock while it works, so calls are made on the
loop itself: threads would add waiting and no parallel work. Only copying and fsync run in threads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
import qdrant_edge as edge

from somagent_vectors.commit import Commit
from somagent_vectors.errors import QdrantError, not_found, wrong_input
from somagent_vectors.fields import Json
from somagent_vectors.files import copy_tree, remove, sync_tree, write_atomically
from somagent_vectors.points import id_to_json, record_to_json
from somagent_vectors.schema import Schema

FLUSH_SECONDS = 5.0
"""Writes that were not waited for are on the disk after at most this time, as with Qdrant's flush interval."""
QUIET_SECONDS = 5.0
BUSY_SECONDS = 30.0
"""Optimization starts after so long a pause, or, without one, so long after the first write that asks for it."""
PURGE_SECONDS = 10.0
PURGE_REST = 10
"""After an optimization the next purge waits so many times as long as that took: rewriting must not become the work."""

Result = TypeVar("Result")

_INTERNAL = ("Service runtime error", "Inconsistent storage", "Out of memory")


def engine_call(call: Callable[[], Result]) -> Result:
    """Runs a call into the engine; its errors become Qdrant's. A panic of the engine is no `Exception`."""
    try:
        return call()
    except (QdrantError, KeyboardInterrupt, SystemExit, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001
        raise _translated(error) from error


def _translated(error: BaseException) -> QdrantError:
    message = str(error)
    if message.startswith("No point with id"):
        return not_found(message)
    if not isinstance(error, Exception) or message.startswith(_INTERNAL):
        return QdrantError(500, f"Service internal error: {message}")
    return wrong_input(message)


class Collection:
    """A collection that is open. `folder` has `collection.json` and the shard that it names."""

    def __init__(self, name: str, folder: Path, schema: Schema, shard_name: str, shard: edge.EdgeShard) -> None:
        self.name = name
        self.schema = schema
        self.folder = folder
        self.optimizer_error: str | None = None
        self._shard_name = shard_name
        self._shard = shard
        self._commit = Commit(self._path / "wal")
        self._writes = asyncio.Lock()
        self._pending: list[Any] | None = None
        self._unflushed_since = 0.0
        self._written_at = 0.0
        self._optimize_since = 0.0
        self._purge = False
        self._purge_not_before = 0.0
        self._closed = False

    @staticmethod
    def create(name: str, folder: Path, schema: Schema) -> Collection:
        """Makes the files below a folder that exists and is empty."""
        shard_name = _shard_name(1)
        shard = engine_call(lambda: edge.EdgeShard.create(str(folder / shard_name), schema.to_engine()))
        shard.flush()
        sync_tree(folder)
        collection = Collection(name, folder, schema, shard_name, shard)
        collection._write_description()
        return collection

    @staticmethod
    def load(name: str, folder: Path) -> Collection:
        """Opens what is there, replaying the log. Leftovers of an interrupted change are removed."""
        described = json.loads((folder / "collection.json").read_text())
        schema, shard_name = Schema.from_json(described["schema"]), described["shard"]
        for path in folder.glob("shard-*"):
            if path.name != shard_name:
                remove(path)
        shard = edge.EdgeShard.load(str(folder / shard_name), schema.to_engine())
        collection = Collection(name, folder, schema, shard_name, shard)
        collection._optimize_since = time.monotonic()
        return collection

    @property
    def _path(self) -> Path:
        return self.folder / self._shard_name

    def _write_description(self) -> None:
        described = {"schema": self.schema.to_json(), "shard": self._shard_name}
        write_atomically(self.folder / "collection.json", orjson.dumps(described))

    # Writing

    async def update(self, operations: list[edge.UpdateOperation], *, wait: bool, purge: bool = False) -> None:
        """Applies them in order. With `wait` it returns when they are on the disk. `purge`: content was deleted."""
        async with self._writes:
            self._open()
            for operation in operations:
                self._apply(operation, purge)
        if wait:
            await self._commit.durable()

    def _apply(self, operation: edge.UpdateOperation, purge: bool) -> None:
        now = self._written_at = time.monotonic()
        self._unflushed_since = self._unflushed_since or now
        self._optimize_since = self._optimize_since or now
        self._purge = self._purge or purge
        if self._pending is not None:
            self._pending.append(operation)
        engine_call(lambda: self._shard.update(operation))

    async def change_settings(self, settings: Json) -> None:
        """Changes configuration; what it means for stored vectors comes with the next optimization."""
        schema = self.schema.changed(settings)
        schema.to_engine()
        async with self._writes:
            self._open()
            await self._reopen(schema)
        self._optimize_since = time.monotonic()

    async def _reopen(self, schema: Schema) -> None:
        self._shard.flush()
        self._shard.close()
        self._shard = engine_call(lambda: edge.EdgeShard.load(str(self._path), schema.to_engine()))
        self.schema = schema
        self._write_description()

    def _open(self) -> None:
        if self._closed:
            raise not_found(f"Collection `{self.name}` doesn't exist!")

    # Reading

    def query(self, request: edge.QueryRequest) -> list[Json]:
        return [record_to_json(each) for each in engine_call(lambda: self._shard.query(request))]

    def scroll(self, request: edge.ScrollRequest) -> Json:
        records, following = engine_call(lambda: self._shard.scroll(request))
        return {
            "points": [record_to_json(each) for each in records],
            "next_page_offset": None if following is None else id_to_json(following),
        }

    def count(self, request: edge.CountRequest) -> int:
        return engine_call(lambda: self._shard.count(request))

    def facet(self, request: edge.FacetRequest) -> list[Json]:
        hits = engine_call(lambda: self._shard.facet(request)).hits
        return [{"value": hit.value, "count": hit.count} for hit in hits]

    def retrieve(self, ids: list[Any], with_payload: Any, with_vector: Any) -> list[Json]:
        records = engine_call(lambda: self._shard.retrieve(ids, with_payload, with_vector))
        return [record_to_json(each) for each in records]

    def vector(self, identifier: Any, name: str) -> Any:
        """The stored vector of a point. Raises QdrantError 404."""
        records = engine_call(lambda: self._shard.retrieve([identifier], False, [name]))
        if not records:
            raise not_found(f"No point with id {id_to_json(identifier)} found")
        vector = records[0].vector
        found = vector.get(name) if isinstance(vector, dict) else vector
        if found is None:
            raise not_found(f"point {id_to_json(identifier)} has no vector {name!r}")
        return found

    def describe(self) -> Json:
        """Qdrant's answer about a collection. Yellow: an optimization runs; grey: one is due."""
        info = self._shard.info()
        status = "yellow" if self.optimizing else "grey" if self._optimization_due(info) else "green"
        return {
            "status": status,
            "optimizer_status": {"error": self.optimizer_error} if self.optimizer_error else "ok",
            "indexed_vectors_count": info.indexed_vectors_count,
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": self.schema.described(),
            "payload_schema": {key: _index_to_json(value) for key, value in info.payload_schema.items()},
        }

    @property
    def points(self) -> int:
        return int(self._shard.info().points_count)

    # The disk

    async def maintain(self) -> None:
        """What is done once a second: writes that nobody waited for go to the disk, the log is shortened."""
        if self._closed or not self._unflushed_since:
            return
        if time.monotonic() - self._unflushed_since < FLUSH_SECONDS:
            return
        await self._commit.durable()
        async with self._writes:
            if not self._closed:
                self._unflushed_since = 0.0
                engine_call(self._shard.flush)

    async def copy_to(self, target: Path) -> None:
        """Copies the shard as it is now; writes wait meanwhile, reads don't."""
        async with self._writes:
            self._open()
            await self._copy(target)

    async def _copy(self, target: Path) -> None:
        engine_call(self._shard.flush)
        self._unflushed_since = 0.0
        await asyncio.to_thread(copy_tree, self._path, target)

    async def adopt(self, source: Path, schema: Schema) -> None:
        """Replaces the whole content by a shard that lies in the same file system."""
        async with self._writes:
            self._open()
            await self._swap(source, schema)
            self._optimize_since = time.monotonic()

    async def _swap(self, source: Path, schema: Schema) -> None:
        fresh_name = _shard_name(int(self._shard_name.removeprefix("shard-")) + 1)
        source.rename(self.folder / fresh_name)
        fresh = engine_call(lambda: edge.EdgeShard.load(str(self.folder / fresh_name), schema.to_engine()))
        for operation in self._pending or []:
            _replay(fresh, operation)
        fresh.flush()
        await asyncio.to_thread(sync_tree, self.folder / fresh_name)
        old_path, old = self._path, self._shard
        self._shard_name, self._shard, self.schema = fresh_name, fresh, schema
        self._commit = Commit(self._path / "wal")
        self._write_description()
        old.close()
        await asyncio.to_thread(remove, old_path)

    async def close(self) -> None:
        async with self._writes:
            if self._closed:
                return
            self._closed = True
            self._shard.flush()
            self._shard.close()

    # Optimization: the index is built in a process of its own, because the engine stops this one while it builds.

    @property
    def optimizing(self) -> bool:
        return self._pending is not None

    def optimization_wanted(self) -> bool:
        """Whether it is due and the moment is good."""
        if self._closed or self.optimizing or not self._optimize_since:
            return False
        now = time.monotonic()
        pause = PURGE_SECONDS if self._purge else QUIET_SECONDS
        if now - self._written_at < pause and now - self._optimize_since < BUSY_SECONDS:
            return False
        if self._optimization_due(self._shard.info()):
            return True
        if not self._purge:
            self._optimize_since = 0.0
        return False

    def _optimization_due(self, info: edge.ShardInfo) -> bool:
        if not self._optimize_since:
            return False
        if self._purge and time.monotonic() >= self._purge_not_before:
            return True
        threshold = self.schema.optimizers["indexing_threshold"] * 1024
        width = max((params["size"] * 4 for params in self.schema.dense.values()), default=0)
        missing = info.points_count * len(self.schema.dense) - info.indexed_vectors_count
        # The rest of an earlier run stays unindexed until it is worth a segment.
        return threshold > 0 and missing * width > threshold

    async def optimize(self) -> None:
        """Builds indexes and removes deleted points in a copy, by another process, then changes over to it."""
        started = time.monotonic()
        copy = self.folder / "next"
        remove(copy)
        async with self._writes:
            if self._closed:
                return
            await self._copy(copy)
            base = self._shard_name
            purge, self._purge, self._optimize_since, self._pending = self._purge, False, 0.0, []
        try:
            await self._build(copy, purge)
            async with self._writes:
                # A snapshot that was recovered meanwhile is newer than this copy.
                if not self._closed and self._shard_name == base:
                    await self._swap(copy, self.schema)
            self.optimizer_error = None
        except (QdrantError, OSError) as error:
            self.optimizer_error = str(error)
            self._optimize_since, self._purge = time.monotonic(), self._purge or purge
            self._written_at = time.monotonic()
        finally:
            self._pending = None
            now = time.monotonic()
            self._purge_not_before = now + PURGE_REST * (now - started)
            await asyncio.to_thread(remove, copy)

    async def _build(self, copy: Path, purge: bool) -> None:
        command = ["-m", "somagent_vectors.optimize", str(copy), "purge" if purge else "keep"]
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, complaint = await child.communicate(orjson.dumps(self.schema.to_json()))
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise QdrantError(500, f"optimization ended with {child.returncode}: {complaint.decode()[-500:]}")


def _shard_name(number: int) -> str:
    return f"shard-{number:08d}"


def _replay(shard: edge.EdgeShard, operation: edge.UpdateOperation) -> None:
    try:
        engine_call(lambda: shard.update(operation))
    except QdrantError as error:
        # It was refused the first time too, and its caller knows.
        if error.status >= 500:
            raise


def _index_to_json(index: Any) -> Json:
    name = str(index.data_type).rsplit(".", maxsplit=1)[-1].lower()
    return {"data_type": name, "points": index.points}
