"""What a statement is, before it runs: an insert with data, or one that the engine's own parser has judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clickhouse_front.errors import ClickHouseError
from clickhouse_front.options import check_setting
from clickhouse_front.users import User

_SPACE = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_NAME = r"(?:[A-Za-z_]\w*|`[^`\\]+`|\"[^\"\\]+\")"
_VALUE = r"(?:'[^'\\]*'|[\w.+-]+)"
_INSERT = re.compile(
    rf"{_SPACE}*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>{_NAME}(?:\s*\.\s*{_NAME})?)"
    r"(?P<columns>\s*\((?:[^()'\\]|\([^()'\\]*\))*\))?"
    rf"(?:\s+SETTINGS\s+(?P<settings>\w+\s*=\s*{_VALUE}(?:\s*,\s*\w+\s*=\s*{_VALUE})*))?"
    r"\s*(?:(?<=[\s)])FORMAT\s+(?P<format>\w+)|(?<=[\s)])(?P<values>VALUES)(?=\s|\())",
    re.IGNORECASE | re.DOTALL,
)
_SETTING = re.compile(rf"(\w+)\s*=\s*({_VALUE})")
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)

#: Formats that rows may be sent in: all are read row by row.
INPUT_FORMATS = {
    name.lower(): name
    for name in (
        "JSONEachRow",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONStringsEachRow",
        "JSONCompactStringsEachRow",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "TSV",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "Native",
        "Values",
    )
}

_TABLE_FUNCTIONS = {"numbers", "numbers_mt", "zeros", "zeros_mt", "one", "generate_series", "generateseries", "view"}
# Read files without asking for a privilege.
_FUNCTIONS = {"file", "catboostevaluate"}
_ENGINES = re.compile(r"\w*MergeTree|Memory|Null|Log|TinyLog|StripeLog|Set|Join|Buffer", re.ASCII)
_SYSTEM_TABLES = {
    "columns",
    "data_skipping_indices",
    "databases",
    "detached_parts",
    "formats",
    "functions",
    "merge_tree_settings",
    "merges",
    "mutations",
    "numbers",
    "numbers_mt",
    "one",
    "parts",
    "parts_columns",
    "partitions",
    "tables",
    "table_engines",
    "time_zones",
    "zeros",
}
_CHILDREN = re.compile(r" \(children \d+\)$")


@dataclass(frozen=True)
class Insert:
    """An INSERT whose rows follow: `sql` has no data and no format."""

    sql: str
    format: str
    #: Where in the text the rows begin, in characters.
    data_at: int


def read_insert(text: str, user: User, chosen: Mapping[str, str]) -> Insert | None:
    """The insert that the text begins with, or None when it is another statement. Raises ClickHouseError.

    `chosen` are checked settings of the URL: they become part of the statement, whose own ones go first.
    """
    found = _INSERT.match(text)
    if found is None:
        return None
    name = "Values" if found["values"] else found["format"]
    known = INPUT_FORMATS.get(name.lower())
    if known is None:
        raise ClickHouseError(73, f"Unknown format {name}; rows may be sent as {', '.join(INPUT_FORMATS.values())}.")
    settings = dict(chosen)
    for setting, value in _SETTING.findall(found["settings"] or ""):
        settings[setting] = check_setting(setting, value.strip("'"), user)
    clause = ", ".join(f"{setting} = '{value}'" for setting, value in settings.items())
    sql = f"INSERT INTO {found['table']}{found['columns'] or ''}" + (f" SETTINGS {clause}" if clause else "")
    return Insert(sql=sql, format=known, data_at=found.end())


def output_format(text: str, default: str) -> str:
    """The format that the answer will have: the statement's own FORMAT clause, or the default."""
    found = _FORMAT.search(text)
    return found.group(1) if found else default


def check_class(query_class: str, statements: int, user: User, *, reads_only: bool) -> None:
    """Judges what the engine's parser said about a statement. Raises ClickHouseError."""
    if statements > 1:
        raise ClickHouseError(62, f"Syntax error (Multi-statements are not allowed): {statements} statements.")
    if query_class in ("CONTROL", "MUTATING_GLOBAL"):
        raise ClickHouseError(
            497,
            f"{user.name}: Not enough privileges. SET, USE, SYSTEM, KILL, ATTACH, DETACH, BACKUP, INTO OUTFILE, access "
            "management, functions and inserts into table functions are not offered; put settings into the URL.",
        )
    if query_class == "READ_ONLY":
        return
    if user.role == "reader":
        raise ClickHouseError(497, f"{user.name}: Not enough privileges. This user may only read.")
    if reads_only:
        raise ClickHouseError(
            164,
            "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use "
            "method POST for modifying queries.",
        )


def check_tree(tree: str, user: User) -> None:
    """Judges the tree that EXPLAIN AST prints, line by line. Raises ClickHouseError 497."""
    parent = ""
    for line in tree.splitlines():
        node = _CHILDREN.sub("", line.strip())
        kind, _, rest = node.partition(" ")
        name = rest.split(" (alias", 1)[0]
        if kind == "Function":
            _check_function(name, parent, user)
        elif kind in ("TableIdentifier", "Identifier"):
            _check_table(name, user)
        elif kind == "Set" and user.role == "reader":
            raise ClickHouseError(164, "Cannot modify settings in readonly mode: put those that you may set into the URL.")
        parent = node


def _check_function(name: str, parent: str, user: User) -> None:
    if parent == "TableExpression" and name.lower() not in _TABLE_FUNCTIONS:
        raise _denied(user, f"table function {name}")
    if parent == "Storage definition" and not _ENGINES.fullmatch(name):
        raise _denied(user, f"table engine {name}")
    if name.lower() in _FUNCTIONS:
        raise _denied(user, f"function {name}")


def _check_table(name: str, user: User) -> None:
    database, dot, table = name.partition(".")
    if dot and database == "system" and table.lower() not in _SYSTEM_TABLES:
        raise _denied(user, f"table system.{table}")


def _denied(user: User, what: str) -> ClickHouseError:
    return ClickHouseError(497, f"{user.name}: Not enough privileges. To execute this query, {what} would be needed.")
