"""Which answers can be sent piece by piece. The engine formats every block as a document of its own."""

from __future__ import annotations

#: Formats whose documents may follow one another.
_JOINABLE = {
    "csv",
    "jsoncompacteachrow",
    "jsoncompactstringseachrow",
    "jsoneachrow",
    "jsonstringseachrow",
    "native",
    "null",
    "rowbinary",
    "tabseparated",
    "tabseparatedraw",
    "tsv",
    "tsvraw",
    "values",
}
_CONTENT_TYPES = {
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "jsoncompacteachrow": "application/x-ndjson; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
}


def header_lines(name: str) -> int | None:
    """Lines that begin every document of this format and may appear once; None: the answer has to be made whole."""
    folded = name.lower()
    if folded in _JOINABLE:
        return 0
    if folded.startswith(("csv", "tsv", "tabseparated", "jsoncompacteachrow", "jsoncompactstringseachrow")):
        if folded.endswith("withnamesandtypes"):
            return 2
        if folded.endswith("withnames"):
            return 1
    return None


def content_type(name: str) -> str:
    return _CONTENT_TYPES.get(name.lower(), "text/plain; charset=UTF-8")


class Joiner:
    """Makes one document of many by leaving out the repeated header."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._header: bytes | None = None

    def add(self, document: bytes) -> bytes:
        if self._lines == 0:
            return document
        if self._header is None:
            end = 0
            for _ in range(self._lines):
                end = document.index(b"\n", end) + 1
            self._header = document[:end]
            return document
        return document.removeprefix(self._header)
