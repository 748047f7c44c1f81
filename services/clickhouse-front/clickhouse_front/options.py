"""Settings that a request may carry, and their bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clickhouse_front.errors import ClickHouseError
from clickhouse_front.settings import Settings
from clickhouse_front.users import User

_FLAG = re.compile(r"[01]|true|false")
_COUNT = re.compile(r"\d{1,15}")
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,3})?")
_WORD = re.compile(r"[A-Za-z_]{1,40}")
_COMMENT = re.compile(r"[\w.*-]{1,100}")
_TOKEN = re.compile(r"[\w.:/@=+-]{1,200}")

#: Given to the engine as they are.
_ENGINE = {
    "date_time_input_format": _WORD,
    "date_time_output_format": _WORD,
    "deduplicate_blocks_in_dependent_materialized_views": _FLAG,
    "input_format_defaults_for_omitted_fields": _FLAG,
    "input_format_import_nested_json": _FLAG,
    "input_format_null_as_default": _FLAG,
    "input_format_skip_unknown_fields": _FLAG,
    "insert_deduplicate": _FLAG,
    "insert_deduplication_token": _TOKEN,
    "join_use_nulls": _FLAG,
    "log_comment": _COMMENT,
    "materialize_ttl_after_modify": _FLAG,
    "max_block_size": _COUNT,
    "max_execution_time": _SECONDS,
    "max_insert_block_size": _COUNT,
    "max_memory_usage": _COUNT,
    "max_result_bytes": _COUNT,
    "max_result_rows": _COUNT,
    "max_rows_to_read": _COUNT,
    "max_threads": _COUNT,
    "mutations_sync": _COUNT,
    "optimize_throw_if_noop": _FLAG,
    "output_format_json_escape_forward_slashes": _FLAG,
    "output_format_json_named_tuples_as_objects": _FLAG,
    "output_format_json_quote_64bit_floats": _FLAG,
    "output_format_json_quote_64bit_integers": _FLAG,
    "output_format_json_quote_decimals": _FLAG,
    "output_format_json_quote_denormals": _FLAG,
    "result_overflow_mode": _WORD,
    "select_sequential_consistency": _FLAG,
}

#: What HTTP is about: answered by the front.
_TRANSPORT = {
    "enable_http_compression": _FLAG,
    "http_headers_progress_interval_ms": _COUNT,
    "http_write_exception_in_output_format": _FLAG,
    "send_progress_in_http_headers": _FLAG,
    "wait_end_of_query": _FLAG,
}

#: Always so here, and what the servers of a cluster are configured to: accepted with this value only.
_FIXED = {"async_insert": "0", "wait_for_async_insert": "1", "readonly": "1"}

#: What a user with readonly=1 may still choose.
_READER = {
    "date_time_output_format",
    "join_use_nulls",
    # Whose rows the request may see: engine.py.
    "log_comment",
    "max_block_size",
    "max_execution_time",
    "max_memory_usage",
    "max_result_bytes",
    "max_result_rows",
    "max_rows_to_read",
    "max_threads",
    "result_overflow_mode",
    "select_sequential_consistency",
} | {name for name in _ENGINE if name.startswith("output_format_")}


@dataclass(frozen=True)
class Options:
    """Settings of one request: those of the engine, and those of the front."""

    engine: Mapping[str, str]
    compress: bool
    progress: bool
    wait: bool


def base_settings(settings: Settings, role: str) -> dict[str, str]:
    """Settings of every connection of a role."""
    return {
        # An acknowledged insert is on disk, and its token decides whether it is a repetition.
        "async_insert": "0",
        "implicit_select": "0",
        "allow_introspection_functions": "0",
        # Rows of VALUES are values: an expression could read a file.
        "input_format_values_interpret_expressions": "0",
        "input_format_values_deduce_templates_of_expressions": "0",
        "max_execution_time": str(settings.max_execution_seconds),
        "max_memory_usage": str(settings.max_query_memory),
        "max_threads": str(settings.threads),
        # 2: as 1, but the front may set what the request is allowed to; a SETTINGS clause is refused to this role.
        **({"readonly": "2"} if role == "reader" else {}),
    }


def read_options(values: Iterable[tuple[str, str]], user: User, settings: Settings) -> Options:
    """Checks the settings of a URL. Raises ClickHouseError 115, 164 or 36."""
    chosen: dict[str, str] = {}
    transport: dict[str, bool] = {}
    for name, value in values:
        if name in _FIXED:
            if value != _FIXED[name]:
                raise ClickHouseError(164, f"Setting {name} is {_FIXED[name]} here and can't be {value!r}.")
        elif name in _TRANSPORT:
            _check(name, value, _TRANSPORT[name])
            transport[name] = value in ("1", "true")
        else:
            chosen[name] = check_setting(name, value, user)
    return Options(
        engine=_bounded(chosen, settings),
        compress=transport.get("enable_http_compression", False),
        progress=transport.get("send_progress_in_http_headers", False),
        wait=transport.get("wait_end_of_query", False),
    )


def check_setting(name: str, value: str, user: User) -> str:
    """The value, if the user may set it so. Raises ClickHouseError 115, 164 or 36."""
    pattern = _ENGINE.get(name)
    if pattern is None:
        raise ClickHouseError(
            115,
            f"Setting {name} is neither a builtin setting nor one that this server takes; it takes: "
            + ", ".join(sorted({*_ENGINE, *_TRANSPORT, *_FIXED})),
        )
    if user.role == "reader" and name not in _READER:
        raise ClickHouseError(164, f"Cannot modify '{name}' setting in readonly mode.")
    return _check(name, value, pattern)


def _check(name: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise ClickHouseError(36, f"Setting {name} can't be {value[:100]!r}; it has to match {pattern.pattern}.")
    return value


def _bounded(chosen: dict[str, str], settings: Settings) -> dict[str, str]:
    """0 means no limit to the engine, but here there is one."""
    limits = {
        "max_execution_time": settings.max_execution_seconds,
        "max_memory_usage": settings.max_query_memory,
        "max_threads": settings.threads,
    }
    for name, limit in limits.items():
        if name in chosen and not 0 < float(chosen[name]) <= limit:
            chosen[name] = str(limit)
    return chosen
