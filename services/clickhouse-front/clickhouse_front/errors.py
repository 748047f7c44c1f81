"""ClickHouse's errors: codes, names and the HTTP statuses that its server answers with.

Sources: ClickHouse's src/Common/ErrorCodes.cpp and src/Server/HTTP/exceptionCodeToHTTPStatus.cpp.
"""

from __future__ import annotations

import re

_NAMES = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    73: "UNKNOWN_FORMAT",
    81: "UNKNOWN_DATABASE",
    89: "UNKNOWN_COMPRESSION_METHOD",
    115: "UNKNOWN_SETTING",
    161: "QUERY_IS_TOO_LARGE",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    236: "ABORTED",
    271: "CANNOT_DECOMPRESS",
    396: "TOO_MANY_ROWS_OR_BYTES",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    1001: "STD_EXCEPTION",
}

# BAD_ARGUMENTS, the errors of parsing and of types.
_BAD_REQUEST = {6, 8, 10, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 69, 72, 117, 167, 168, 235, 282, 295, 427, 441, 675, 676}
# UNKNOWN_TABLE, _FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _FORMAT, _DATABASE, _SETTING, ...
_NOT_FOUND = {30, 46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 183, 336, 511}
_OTHERS = {
    48: 501,
    76: 503,
    159: 408,
    161: 413,
    192: 403,
    193: 403,
    194: 401,
    209: 503,
    381: 411,
    439: 503,
    497: 403,
    512: 403,
    516: 403,
}

_ENGINE_ERROR = re.compile(r"Code: (\d+)\. DB::Exception: ")


class ClickHouseError(Exception):
    """An error as ClickHouse's server would report it: `code` is its number, `text` what the client reads."""

    def __init__(self, code: int, message: str) -> None:
        # Clients take the name for a part of every error.
        super().__init__(f"Code: {code}. DB::Exception: {message} ({_NAMES[code]})")
        self.code = code

    @property
    def status(self) -> int:
        """HTTP status for this code."""
        return http_status(self.code)

    def text(self, version: str) -> str:
        return f"{self} (version {version})\n"


class EngineError(ClickHouseError):
    """An error that the engine raised, word for word."""

    def __init__(self, code: int, message: str) -> None:
        Exception.__init__(self, message)
        self.code = code


def http_status(code: int) -> int:
    """HTTP status for an error code."""
    if code in _BAD_REQUEST:
        return 400
    if code in _NOT_FOUND:
        return 404
    return _OTHERS.get(code, 500)


def engine_error(error: BaseException) -> ClickHouseError:
    """The engine's exception with its code; 1001 where it gave none."""
    message = str(error).strip()
    found = _ENGINE_ERROR.search(message)
    if found is None:
        return ClickHouseError(1001, message)
    return EngineError(int(found.group(1)), message[found.start() :])
