"""The two users. Only digests are kept; comparison takes the same time for every guess."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from clickhouse_front.errors import ClickHouseError
from clickhouse_front.settings import SettingsError

#: `analytics` owns the database, `reader` may SELECT. The names are also the engine's roles.
ROLES = ("analytics", "reader")
_LEAST_PASSWORD = 16


@dataclass(frozen=True)
class User:
    """Who asks; `role` is the engine's role that its queries run under."""

    name: str
    role: str


class Users:
    """Passwords of the users, from `<folder>/<role>/{username,password or password_sha256_hex}`."""

    def __init__(self, directory: Path) -> None:
        # Digests in memory are of this process only.
        self._key = secrets.token_bytes(32)
        self._users: dict[str, tuple[User, bytes]] = {}
        for role in ROLES:
            name, digest = _read(directory / role)
            if name in self._users:
                raise SettingsError(f"{directory}: two users are called {name}; give each its own name")
            self._users[name] = (User(name, role), self._seal(digest))
        self._nobody = self._seal(secrets.token_bytes(32))

    def authenticate(self, headers: Mapping[str, str]) -> User:
        """The user of a request's headers. Raises ClickHouseError 516."""
        name, password = _credentials(headers)
        user, known = self._users.get(name, (None, self._nobody))
        given = self._seal(sha256(password.encode()).digest())
        if not hmac.compare_digest(given, known) or user is None:
            raise _refused(name)
        return user

    def _seal(self, digest: bytes) -> bytes:
        return hmac.digest(self._key, digest, "sha256")


def _refused(name: str) -> ClickHouseError:
    shown = name if re.fullmatch(r"[\w.-]{1,64}", name) else "(unreadable name)"
    return ClickHouseError(
        516,
        f"{shown}: Authentication failed: password is incorrect, or there is no user with such name.",
    )


def _credentials(headers: Mapping[str, str]) -> tuple[str, str]:
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", ""), headers.get("x-clickhouse-key", "")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise ClickHouseError(516, "Authentication failed: send a user and a password, by Basic or X-ClickHouse-User/Key.")
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ClickHouseError(516, "Authentication failed: the Basic credentials are not base64 of UTF-8.") from None
    return name, password


def _read(directory: Path) -> tuple[str, bytes]:
    name = _file(directory / "username")
    if not re.fullmatch(r"[\w.-]{1,64}", name):
        raise SettingsError(f"{directory}/username is not usable; write a name of letters, digits, '_', '.' and '-'")
    hashed = directory / "password_sha256_hex"
    if hashed.exists():
        try:
            digest = bytes.fromhex(_file(hashed))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise SettingsError(f"{hashed} is not usable; write 64 hexadecimal digits")
        return name, digest
    password = _file(directory / "password")
    if len(password) < _LEAST_PASSWORD:
        raise SettingsError(f"{directory}/password is too short; use at least {_LEAST_PASSWORD} characters")
    return name, sha256(password.encode()).digest()


def _file(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror}); mount the user's Secret there") from error
