"""Reads JSON bodies: unknown, missing and wrongly typed fields are named instead of ignored."""

from __future__ import annotations

import uuid
from typing import Any

from somagent_vectors.errors import bad_json, unsupported

Json = dict[str, Any]
PointId = int | uuid.UUID


def read(body: Any, where: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Json:
    """The fields of an object that are not null. Raises QdrantError 400 for a missing one, 501 for an unknown one."""
    if not isinstance(body, dict):
        raise bad_json(f"{where} is {_kind(body)}; send an object")
    present = {name: value for name, value in body.items() if value is not None}
    for name in required:
        if name not in present:
            raise bad_json(f"{where} has no field `{name}`; add it")
    for name in present:
        if name not in required and name not in optional:
            known = ", ".join((*required, *optional))
            raise unsupported(f"field `{name}` of {where}", f"leave it out (supported: {known})")
    return present


def typed(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    """The value when it is of the kind. A bool is no number."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise bad_json(f"{where} is {_kind(value)}; send {' or '.join(_NAMES[each] for each in kinds)}")
    return value


def natural(value: Any, where: str, least: int = 0, most: int = 2**31) -> int:
    number = typed(value, int, where)
    if not least <= number <= most:
        raise bad_json(f"{where} is {number}; send a whole number from {least} to {most}")
    return number


def choice(value: Any, choices: dict[str, Any], where: str) -> Any:
    found = choices.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise bad_json(f"{where} is {value!r}; send one of {', '.join(choices)}")
    return found


def strings(value: Any, where: str) -> list[str]:
    return [typed(each, str, f"an item of {where}") for each in typed(value, list, where)]


def point_id(value: Any) -> PointId:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    if isinstance(value, str):
        try:
            return uuid.UUID(value)
        except ValueError:
            pass
    raise bad_json(f"value {value!r} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def point_ids(value: Any, where: str) -> list[PointId]:
    return [point_id(each) for each in typed(value, list, where)]


_NAMES: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _kind(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)
