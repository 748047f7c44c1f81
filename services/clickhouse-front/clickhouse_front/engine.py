"""The engine: one per process and folder, with a pool of connections for each role.

All rights are the engine's own: its only user, which connections are signed in as, has nothing but the roles below, and
none of them may read files or addresses. Each connection is used by one thread, which is confined by Landlock.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator, TypeVar
from xml.sax.saxutils import escape

from clickhouse_front.errors import ClickHouseError, engine_error
from clickhouse_front.landlock import require_landlock, restrict_thread
from clickhouse_front.options import base_settings
from clickhouse_front.settings import Settings

T = TypeVar("T")

_OWNER_GRANTS = (
    "SHOW, SELECT, INSERT, ALTER TABLE, ALTER VIEW, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, "
    "TRUNCATE, OPTIMIZE, CHECK"
)
#: Tables whose rows belong to tenants. The role `reader` sees those of the tenant that the request names in the setting
#: `log_comment`, all of them with `*`, and none without it, whatever the statement says; through views too.
TENANT_TABLES = ("usage", "session_event", "verdict", "lifecycle", "dead_letter", "forecast", "anomaly")
_ROWS_OF_READER = "getSetting('log_comment') = '*' OR (tenant != '' AND tenant = getSetting('log_comment'))"
_CONFIG = """<clickhouse>
  <users_config>{folder}/users.xml</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>16777216</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <index_mark_cache_size>4194304</index_mark_cache_size>
  <max_thread_pool_size>128</max_thread_pool_size>
  <max_thread_pool_free_size>8</max_thread_pool_free_size>
  <background_pool_size>2</background_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>
    <non_replicated_deduplication_window>10000</non_replicated_deduplication_window>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    <merge_with_ttl_timeout>60</merge_with_ttl_timeout>
  </merge_tree>
</clickhouse>
"""
_USERS = """<clickhouse>
  <profiles><default></default></profiles>
  <quotas><default></default></quotas>
  <roles>
    <reader><grants><query>GRANT SHOW, SELECT ON {database}.*</query></grants></reader>
    <analytics><grants><query>GRANT {owner} ON {database}.*</query></grants></analytics>
    <monitor>
      <grants>
        <query>GRANT SHOW ON {database}.*</query>
        <query>GRANT SELECT ON system.*</query>
        <query>GRANT KILL QUERY ON *.*</query>
      </grants>
    </monitor>
  </roles>
  <users>
    <default>
      <no_password/>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <databases><{database}>{filters}</{database}></databases>
      <grants><query>GRANT reader, analytics, monitor</query></grants>
    </default>
  </users>
</clickhouse>
"""


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer and what was read for it."""

    data: bytes
    rows: int
    read_rows: int
    read_bytes: int


@dataclass(frozen=True)
class Written:
    """What an insert wrote, materialized views included."""

    rows: int
    bytes: int


class Connection:
    """One session of the engine, used by one thread. Every method but `run` runs on that thread."""

    def __init__(self, engine: Engine, role: str, label: str) -> None:
        self.role = role
        self.label = label
        self._engine = engine
        self._base = base_settings(engine.settings, role)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=label, initializer=engine.confine)
        self._raw: Any = None
        self.settings: dict[str, str] = {}

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Does work of this connection on its thread. Raises ClickHouseError with the engine's code."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work, *arguments)

    def _guarded(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return work(*arguments)
        except RuntimeError as error:
            raise engine_error(error) from None

    def open(self) -> None:
        """Signs in as the role. Nobody can leave the database of the engine: USE is not offered."""
        self._raw = self._engine.connect()
        self._raw.query(f"SET ROLE {self.role}")
        # By this label a running query is found and ended.
        self._set("workload", self.label)
        for name, value in self._base.items():
            self._set(name, value)

    def enter(self, database: str) -> None:
        self._raw.query(f"USE {database}")

    def configure(self, settings: dict[str, str]) -> None:
        """Gives the session exactly these settings above its base. They stay: most requests of a client set the same."""
        for name in self.settings.keys() - settings.keys():
            if name in self._base:
                self._set(name, self._base[name])
            else:
                self._raw.query(f"SET {name} = DEFAULT")
            del self.settings[name]
        for name, value in settings.items():
            if self.settings.get(name) != value:
                self._set(name, value)
                # Only now: one that is refused is not there.
                self.settings[name] = value

    def classify(self, sql: str) -> tuple[str, int]:
        report = self._raw.classify_query(sql, self._engine.settings.database)
        return report["query_class"].name, report["statement_count"]

    def tree(self, sql: str, parameters: dict[str, str]) -> str:
        """The parsed statement, or the error of a statement that does not parse."""
        return self._raw.query(f"EXPLAIN AST {sql}", "TSVRaw", params=parameters).bytes().decode(errors="replace")

    def query(self, sql: str, form: str, parameters: dict[str, str]) -> Chunk:
        result = self._raw.query(sql, form, params=parameters)
        return _chunk(result)

    def written(self, sql: str, parameters: dict[str, str]) -> tuple[Chunk, Written]:
        """Runs a statement that changes something."""
        result = self._raw.query(sql, "TSV", params=parameters)
        return _chunk(result), Written(result.rows_written(), result.bytes_written())

    def begin(self, sql: str, form: str, parameters: dict[str, str]) -> Any:
        return self._raw.send_query(sql, form, params=parameters)

    def fetch(self, stream: Any) -> Chunk | None:
        """The next piece, or None at the end. The first piece of an empty answer may still have a header."""
        result = self._raw.streaming_fetch_result(stream)
        chunk = _chunk(result)
        return chunk if chunk.rows > 0 or chunk.data else None

    def cancel(self, stream: Any) -> None:
        self._raw.streaming_cancel_query(stream)

    def begin_insert(self, sql: str, form: str, data: bytes) -> Any:
        stream = self._raw.send_insert(sql, form)
        try:
            self.append(stream, data)
        except BaseException:
            self.cancel_insert(stream)
            raise
        return stream

    def insert(self, sql: str, form: str, data: bytes) -> Written:
        """An insert whose rows are all there."""
        stream = self.begin_insert(sql, form, data)
        try:
            return self.finish_insert(stream)
        except BaseException:
            self.cancel_insert(stream)
            raise

    def append(self, stream: Any, data: bytes) -> None:
        if data:
            self._raw.insert_append(stream, data)

    def finish_insert(self, stream: Any) -> Written:
        result = self._raw.insert_done(stream)
        return Written(result.rows_written(), result.bytes_written())

    def cancel_insert(self, stream: Any) -> None:
        # An insert that failed may have ended by itself.
        with suppress(RuntimeError):
            self._raw.insert_cancel(stream)

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def end(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=True)

    def _set(self, name: str, value: str) -> None:
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        self._raw.query(f"SET {name} = '{quoted}'")


def _chunk(result: Any) -> Chunk:
    return Chunk(result.bytes(), result.rows_read(), result.storage_rows_read(), result.storage_bytes_read())


class Pool:
    """Connections of one role; made when first needed, kept for the next query."""

    def __init__(self, make: Callable[[], Connection], database: str) -> None:
        self._make = make
        self._database = database
        self._free: list[Connection] = []
        self._all: list[Connection] = []

    async def take(self, settings: dict[str, str]) -> Connection:
        """A free connection, one that has these settings already where there is one."""
        for place in range(len(self._free) - 1, -1, -1):
            if self._free[place].settings == settings:
                return self._free.pop(place)
        if self._free:
            return self._free.pop()
        connection = self._make()
        self._all.append(connection)
        try:
            await connection.run(connection.open)
            await connection.run(connection.enter, self._database)
        except BaseException:
            await self.drop(connection)
            raise
        return connection

    def give(self, connection: Connection) -> None:
        self._free.append(connection)

    async def drop(self, connection: Connection) -> None:
        """Closes a connection whose state is not known."""
        self._all.remove(connection)
        try:
            await connection.run(connection.close)
        finally:
            connection.end()

    async def close(self) -> None:
        for connection in list(self._all):
            await self.drop(connection)
        self._free.clear()


class Engine:
    """The engine of this process. Raises LandlockError when its threads can't be confined."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = ""
        self._labels = self._count()
        self._chdb: Any = None
        self._config = settings.data_directory / "config"
        self._monitor_lock = asyncio.Lock()
        self._monitor: Connection | None = None
        self._pools = {role: Pool(lambda role=role: self._connection(role), settings.database) for role in ("analytics", "reader")}

    def confine(self) -> None:
        """Leaves the calling thread the engine's own folder, and what a program needs to run."""
        restrict_thread(_system_paths(), [self.settings.data_directory, Path("/dev/null"), Path("/dev/shm")])

    async def start(self) -> None:
        """Opens the data and makes the database. Takes seconds when there is much of it."""
        require_landlock()
        self._write_config()
        monitor = self._connection("monitor")
        await monitor.run(self._load)
        await monitor.run(monitor.open)
        self._monitor = monitor
        self.version = (await monitor.run(monitor.query, "SELECT version()", "TSV", {})).data.decode().strip()
        await self._make_database()

    @asynccontextmanager
    async def connection(self, role: str, settings: dict[str, str]) -> AsyncIterator[Connection]:
        """A connection with these settings."""
        pool = self._pools[role]
        connection = await pool.take(settings)
        try:
            if connection.settings != settings:
                await connection.run(connection.configure, settings)
            yield connection
        finally:
            pool.give(connection)

    async def kill(self, connection: Connection) -> None:
        """Asks the engine to end what this connection runs; it reports error 394 there."""
        await self.monitor(
            "KILL QUERY WHERE Settings['workload'] = {label:String} ASYNC", {"label": connection.label}
        )

    async def monitor(self, sql: str, parameters: dict[str, str] | None = None) -> str:
        """Asks about the engine itself."""
        if self._monitor is None:
            raise ClickHouseError(236, "the engine is not running")
        async with self._monitor_lock:
            return (await self._monitor.run(self._monitor.query, sql, "TSV", parameters or {})).data.decode()

    async def stop(self) -> None:
        """Closes all connections; with the last one the engine ends in order."""
        for pool in self._pools.values():
            await pool.close()
        if self._monitor is not None:
            await self._monitor.run(self._monitor.close)
            self._monitor.end()
            self._monitor = None

    def connect(self) -> Any:
        """A session of the engine, on the thread of its connection."""
        return self._chdb.connect(f"{self.settings.data_directory}/engine?config-file={self._config}/config.xml")

    async def _make_database(self) -> None:
        owner = self._connection("analytics")
        await owner.run(owner.open)
        await owner.run(owner.query, f"CREATE DATABASE IF NOT EXISTS {self.settings.database}", "TSV", {})
        await owner.run(owner.close)
        owner.end()

    def _load(self) -> None:
        # On a confined thread, because the library starts threads as it is loaded.
        self._chdb = _library()
        self._chdb.set_signal_handlers_enabled(False)

    def _connection(self, role: str) -> Connection:
        return Connection(self, role, f"{role}-{next(self._labels)}")

    def _write_config(self) -> None:
        self._config.mkdir(mode=0o700, exist_ok=True)
        values = {
            "folder": escape(str(self._config)),
            "memory": self.settings.max_memory,
            "database": self.settings.database,
            "owner": _OWNER_GRANTS,
            "filters": "".join(_filter(table) for table in TENANT_TABLES),
        }
        (self._config / "config.xml").write_text(_CONFIG.format(**values))
        (self._config / "users.xml").write_text(_USERS.format(**values))

    @staticmethod
    def _count() -> Iterator[int]:
        number = 0
        while True:
            number += 1
            yield number


def _filter(table: str) -> str:
    rows = escape(f"NOT has(currentRoles(), 'reader') OR {_ROWS_OF_READER}")
    return f"<{table}><filter>{rows}</filter></{table}>"


def _library() -> Any:
    """The engine's extension without its package, which would boot an engine in a temporary folder of its own."""
    package = importlib.util.find_spec("chdb")
    if package is None or not package.submodule_search_locations:
        raise ClickHouseError(1001, "chdb-core is not installed; install requirements.txt")
    path = f"{package.submodule_search_locations[0]}/_chdb.abi3.so"
    # Its own copy of OpenSSL, not Python's: what the package itself does first.
    ctypes.CDLL(path, mode=os.RTLD_LAZY | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
    spec = importlib.util.spec_from_file_location("chdb._chdb", path)
    if spec is None or spec.loader is None:
        raise ClickHouseError(1001, f"{path} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _system_paths() -> list[Path]:
    """What the engine and Python read: programs and libraries, the clock's zone, the kernel's figures."""
    libraries = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    ours = {Path(path) for path in sys.path if path}
    fixed = ("/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache", "/proc", "/sys")
    return [*libraries, *ours, *(Path(path) for path in (*fixed, "/dev/urandom"))]
