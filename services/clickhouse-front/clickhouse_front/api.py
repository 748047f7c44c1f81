"""ClickHouse's HTTP interface, as an ASGI application. Source: https://clickhouse.com/docs/interfaces/http"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import string
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from clickhouse_front.body import Body, Disconnected, Head, first_of, gathered, read_multipart
from clickhouse_front.engine import Chunk, Connection, Engine, Written
from clickhouse_front.errors import ClickHouseError
from clickhouse_front.formats import Joiner, content_type, header_lines
from clickhouse_front.log import log
from clickhouse_front.metrics import Metrics
from clickhouse_front.options import Options, read_options
from clickhouse_front.response import Response, Send
from clickhouse_front.statements import check_class, check_tree, output_format, read_insert
from clickhouse_front.users import User, Users

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

# Parameters of the interface itself; all others are settings.
_INTERFACE = {"query", "database", "default_format", "query_id"}
_NOT_OFFERED = {"session_id", "session_timeout", "session_check", "role", "quota_key", "compress", "decompress"}
# An answer that has to be made whole may have this many bytes.
_WHOLE_ANSWER = 64 << 20
# The statement of an insert with rows has to fit here.
_INSERT_HEAD = 64 << 10
_KILL_EVERY = 0.1
# Rows are given to the engine in pieces of this size: each costs a change of threads.
_PIECE = 256 << 10
# How many judged statements are remembered, and how long one may be, in characters.
_JUDGED_MOST, _JUDGED_TEXT = 200, 4096


@dataclass
class Summary:
    """What X-ClickHouse-Summary says. Counts are of rows and bytes."""

    started: float = field(default_factory=time.monotonic)
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0

    def add(self, chunk: Chunk) -> None:
        self.read_rows += chunk.read_rows
        self.read_bytes += chunk.read_bytes
        self.result_rows += chunk.rows
        self.result_bytes += len(chunk.data)

    def wrote(self, written: Written) -> None:
        self.written_rows, self.written_bytes = written.rows, written.bytes

    def text(self) -> str:
        counts = {
            "read_rows": self.read_rows,
            "read_bytes": self.read_bytes,
            "written_rows": self.written_rows,
            "written_bytes": self.written_bytes,
            "total_rows_to_read": 0,
            "result_rows": self.result_rows,
            "result_bytes": self.result_bytes,
            "elapsed_ns": int((time.monotonic() - self.started) * 1e9),
        }
        return json.dumps({name: str(count) for name, count in counts.items()}, separators=(",", ":"))


@dataclass(frozen=True)
class Request:
    """A request whose sender is known and whose parameters are checked."""

    user: User
    query_id: str
    form: str
    reads_only: bool
    query: str
    parameters: dict[str, str]
    options: Options
    content_type: str
    gzip: bool


class Judged:
    """What was found about the latest statements that may run: whoever asks again asks with the same text.

    Values of parameters change nothing of a statement's tree, but for names that are parameters: those are not kept.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[str, int]] = {}

    def get(self, key: tuple[str, str]) -> tuple[str, int] | None:
        return self._found.get(key)

    def add(self, key: tuple[str, str], found: tuple[str, int]) -> None:
        text = key[1]
        if len(text) > _JUDGED_TEXT or "identifier" in text.lower():
            return
        if len(self._found) >= _JUDGED_MOST:
            del self._found[next(iter(self._found))]
        self._found[key] = found


class Api:
    """Answers /, /ping and /replicas_status."""

    def __init__(self, engine: Engine, users: Users, metrics: Metrics) -> None:
        self._engine = engine
        self._users = users
        self._metrics = metrics
        self._judged = Judged()
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = Response(send)
        if scope["path"] in ("/ping", "/replicas_status"):
            await response.whole(200, b"Ok.\n", {})
        elif scope["path"] != "/" or scope["method"] not in ("GET", "POST"):
            await response.whole(404, b"There is no handle here; send queries to / by GET or POST.\n", {})
        else:
            await self._serve(scope, receive, response)

    async def _serve(self, scope: Scope, receive: Receive, response: Response) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query_id = str(uuid.uuid4())
        outcome, role, kind, started = 0, "none", "none", time.monotonic()
        try:
            request = self._read(scope, headers)
            query_id, role = request.query_id, request.user.role
            body = Body(receive, headers.get("content-encoding", "").lower())
            kind = await self._run(request, body, response)
        except ClickHouseError as error:
            outcome = error.code
            if outcome == 516:
                self._metrics.refused.inc()
            await response.error(error, self._engine.version, query_id)
        except Disconnected:
            # NETWORK_ERROR, for the metrics: nobody reads an answer.
            outcome = 210
        except Exception as error:
            outcome = 1001
            log("error", "a request failed", query_id=query_id, error=repr(error))
            await response.error(ClickHouseError(1001, "internal error"), self._engine.version, query_id)
        self._metrics.queries.labels(role, kind, str(outcome)).inc()
        self._metrics.seconds.labels(role, kind).observe(time.monotonic() - started)

    def _read(self, scope: Scope, headers: dict[str, str]) -> Request:
        values = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        names = [name for name, _ in values]
        if "user" in names or "password" in names:
            raise ClickHouseError(516, "Authentication failed: credentials in a URL end in logs; send them in headers.")
        user = self._users.authenticate(headers)
        refused = sorted(_NOT_OFFERED.intersection(names))
        if refused:
            raise ClickHouseError(48, f"{', '.join(refused)} is not offered by this server; leave it out.")
        interface = {name: value for name, value in values if name in _INTERFACE}
        self._check_database(interface.get("database", headers.get("x-clickhouse-database", "")))
        settings = [(n, v) for n, v in values if n not in _INTERFACE and not n.startswith("param_")]
        return Request(
            user=user,
            query_id=_query_id(interface.get("query_id", headers.get("x-clickhouse-query-id", ""))),
            form=interface.get("default_format", headers.get("x-clickhouse-format", "TabSeparated")),
            reads_only=scope["method"] == "GET",
            query=interface.get("query", ""),
            parameters=_parameters(values),
            options=read_options(settings, user, self._engine.settings),
            content_type=headers.get("content-type", ""),
            gzip="gzip" in headers.get("accept-encoding", ""),
        )

    def _check_database(self, name: str) -> None:
        ours = self._engine.settings.database
        if name not in ("", ours):
            raise ClickHouseError(81, f"Database {name[:64]} does not exist; this server has {ours}.")

    async def _run(self, request: Request, body: Body, response: Response) -> str:
        """Returns what kind of statement it was."""
        most = self._engine.settings.max_queries
        if self._running >= most:
            raise ClickHouseError(202, f"Too many simultaneous queries. Maximum: {most}. Try again in a second.")
        self._running += 1
        self._metrics.running.set(self._running)
        try:
            return await self._dispatch(request, body, response)
        finally:
            self._running -= 1
            self._metrics.running.set(self._running)

    async def _dispatch(self, request: Request, body: Body, response: Response) -> str:
        head = Head(body, request.query)
        parameters = dict(request.parameters)
        if request.content_type.startswith("multipart/form-data"):
            fields = read_multipart(request.content_type, (await head.statement()).encode())
            text = fields.pop("query")
            parameters |= _parameters(fields.items())
        else:
            beginning = (await head.fill(_INSERT_HEAD)).decode(errors="surrogateescape")
            insert = read_insert(beginning, request.user, request.options.engine)
            if insert is not None:
                if request.user.role == "reader" or request.reads_only:
                    check_class("MUTATING", 1, request.user, reads_only=request.reads_only)
                begin = len(beginning[: insert.data_at].encode(errors="surrogateescape"))
                await self._insert(request, insert.sql, insert.format, head.rows(begin), response)
                return "insert"
            text = await head.statement()
        return await self._statement(request, text, parameters, body, response)

    async def _insert(
        self, request: Request, sql: str, form: str, rows: AsyncIterator[bytes], response: Response
    ) -> None:
        summary = Summary()
        async with aclosing(rows) as pieces, aclosing(gathered(_without_first_newline(pieces), _PIECE)) as portions:
            first = await anext(portions, b"")
            async with self._engine.connection(request.user.role, {}) as connection:
                # From the last piece on it is the engine's: a client that goes then may find its rows written.
                if len(first) < _PIECE:
                    summary.wrote(await connection.run(connection.insert, sql, form, first))
                else:
                    summary.wrote(await self._insert_portions(connection, sql, form, first, portions))
        self._metrics.written.inc(summary.written_rows)
        await response.whole(200, b"", self._headers(request, "TabSeparated", summary))

    async def _insert_portions(
        self, connection: Connection, sql: str, form: str, first: bytes, portions: AsyncIterator[bytes]
    ) -> Written:
        stream = await connection.run(connection.begin_insert, sql, form, first)
        try:
            async for portion in portions:
                await connection.run(connection.append, stream, portion)
            return await connection.run(connection.finish_insert, stream)
        except BaseException:
            await connection.run(connection.cancel_insert, stream)
            raise

    async def _statement(
        self, request: Request, text: str, parameters: dict[str, str], body: Body, response: Response
    ) -> str:
        async with self._engine.connection(request.user.role, dict(request.options.engine)) as connection:
            kind = await self._judge(request, connection, text, parameters)
            gone = asyncio.ensure_future(body.until_disconnect())
            watched = _Watched(self._engine, connection, gone)
            try:
                if kind == "READ_ONLY":
                    await self._select(request, watched, text, parameters, response)
                else:
                    await self._change(request, watched, text, parameters, response)
            finally:
                gone.cancel()
        return "select" if kind == "READ_ONLY" else "change"

    async def _judge(self, request: Request, connection: Connection, text: str, parameters: dict[str, str]) -> str:
        known = self._judged.get((request.user.role, text))
        query_class, statements = known or await connection.run(connection.classify, text)
        check_class(query_class, statements, request.user, reads_only=request.reads_only)
        if known is not None:
            return query_class
        # What does not parse ends here, with the engine's own message.
        check_tree(await connection.run(connection.tree, text, parameters), request.user)
        if query_class not in ("READ_ONLY", "MUTATING"):
            raise ClickHouseError(62, "Syntax error: this is no statement that the server knows.")
        self._judged.add((request.user.role, text), (query_class, statements))
        return query_class

    async def _change(
        self, request: Request, watched: _Watched, text: str, parameters: dict[str, str], response: Response
    ) -> None:
        summary = Summary()
        chunk, written = await watched.run(watched.connection.written, text, parameters)
        summary.add(chunk)
        summary.wrote(written)
        self._metrics.written.inc(written.rows)
        await response.whole(200, chunk.data, self._headers(request, "TabSeparated", summary))

    async def _select(
        self, request: Request, watched: _Watched, text: str, parameters: dict[str, str], response: Response
    ) -> None:
        form = output_format(text, request.form)
        lines = header_lines(form)
        if lines is None:
            await self._whole(request, watched, text, form, parameters, response)
        else:
            await self._stream(request, watched, text, form, lines, parameters, response)

    async def _whole(
        self,
        request: Request,
        watched: _Watched,
        text: str,
        form: str,
        parameters: dict[str, str],
        response: Response,
    ) -> None:
        connection, summary = watched.connection, Summary()
        limits = {"max_result_bytes": str(_WHOLE_ANSWER)} | dict(request.options.engine)
        if connection.settings != limits:
            await connection.run(connection.configure, limits)
        chunk = await watched.run(connection.query, text, form, parameters)
        summary.add(chunk)
        await response.whole(200, chunk.data, self._headers(request, form, summary), gzip=_compress(request))

    async def _stream(
        self,
        request: Request,
        watched: _Watched,
        text: str,
        form: str,
        lines: int,
        parameters: dict[str, str],
        response: Response,
    ) -> None:
        connection, summary, joiner = watched.connection, Summary(), Joiner(lines)
        stream = await watched.run(connection.begin, text, form, parameters)
        held: list[bytes] = []
        try:
            while (chunk := await watched.run(connection.fetch, stream)) is not None:
                summary.add(chunk)
                data = joiner.add(chunk.data)
                if request.options.wait:
                    held.append(data)
                    if summary.result_bytes > _WHOLE_ANSWER:
                        raise ClickHouseError(396, f"Result is larger than {_WHOLE_ANSWER} bytes; leave wait_end_of_query out.")
                    continue
                if not response.started:
                    await response.start(200, self._headers(request, form, summary), gzip=_compress(request))
                await response.send(data)
        except BaseException:
            with suppress(ClickHouseError):
                await connection.run(connection.cancel, stream)
            raise
        if not response.started:
            await response.whole(200, b"".join(held), self._headers(request, form, summary), gzip=_compress(request))
            return
        await response.end()

    def _headers(self, request: Request, form: str, summary: Summary) -> dict[str, str]:
        headers = {
            "content-type": content_type(form),
            "x-clickhouse-format": form,
            "x-clickhouse-query-id": request.query_id,
            "x-clickhouse-summary": summary.text(),
            "x-clickhouse-timezone": "UTC",
            "x-clickhouse-server-display-name": "somagent",
            "x-clickhouse-exception-tag": "".join(secrets.choice(string.ascii_lowercase) for _ in range(16)),
        }
        if request.options.progress:
            headers["x-clickhouse-progress"] = summary.text()
        return headers


class _Watched:
    """Work of a connection that ends when its client goes."""

    def __init__(self, engine: Engine, connection: Connection, gone: asyncio.Future[None]) -> None:
        self.connection = connection
        self._engine = engine
        self._gone = gone

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Raises Disconnected when the client went before the work was done."""
        task = asyncio.ensure_future(self.connection.run(work, *arguments))
        try:
            if await first_of(task, self._gone):
                return task.result()
        except asyncio.CancelledError:
            await self._end(task)
            raise
        await self._end(task)
        raise Disconnected

    async def _end(self, task: asyncio.Future[Any]) -> None:
        # Once more until it is over: a statement that has not begun yet can't be found.
        while not task.done():
            with suppress(ClickHouseError):
                await self._engine.kill(self.connection)
            await asyncio.wait({task}, timeout=_KILL_EVERY)
        with suppress(ClickHouseError):
            task.result()


def _compress(request: Request) -> bool:
    return request.gzip and request.options.compress


def _query_id(given: str) -> str:
    if not given:
        return str(uuid.uuid4())
    if not re.fullmatch(r"[\w.:/-]{1,128}", given):
        raise ClickHouseError(36, "query_id is not usable; send 1 to 128 letters, digits and . : / _ -")
    return given


def _parameters(values: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.removeprefix("param_"): value for name, value in values if name.startswith("param_")}


async def _without_first_newline(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What follows the statement: the line break that ends it is no data."""
    first = True
    async for piece in pieces:
        if first:
            piece = re.sub(rb"^[ \t]*\r?\n", b"", piece)
            first = False
        if piece:
            yield piece
