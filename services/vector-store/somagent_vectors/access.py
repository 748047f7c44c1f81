"""Who may ask: the holder of the key, or of the key that only reads. Both are files that may be rotated."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from somagent_slm.environment import SHORTEST_TOKEN, SettingsError


class Right(enum.Enum):
    NONE = "none"
    READ = "read"
    WRITE = "write"


class Access:
    """Compares digests of equal length: neither a key's length nor its first wrong byte shows in the time it takes."""

    def __init__(self, writer: Path, reader: Path | None) -> None:
        """Raises SettingsError for a file without a usable key."""
        self._writer = _KeyFile(writer)
        self._reader = None if reader is None else _KeyFile(reader)

    def right(self, headers: Mapping[str, str]) -> Right:
        """What the headers of a request allow: `api-key`, or else a bearer token."""
        key = presented_key(headers)
        digest = _digest(key or "")
        writes = self._writer.matches(digest)
        reads = self._reader is not None and self._reader.matches(digest)
        if key is None:
            return Right.NONE
        return Right.WRITE if writes else Right.READ if reads else Right.NONE


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key that a request shows."""
    if "api-key" in headers:
        return headers["api-key"]
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


class _KeyFile:
    """A rotated file is read again at the next request; one that became unusable leaves the last key in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._digest = b""
        self._refresh()
        if not self._digest:
            raise SettingsError(f"{path} has no key of {SHORTEST_TOKEN} or more characters; write one into it")

    def matches(self, digest: bytes) -> bool:
        self._refresh()
        return hmac.compare_digest(digest, self._digest)

    def _refresh(self) -> None:
        try:
            stamp = self._path.stat().st_mtime_ns
            key = self._path.read_text().strip() if stamp != self._stamp else ""
        except OSError:
            return
        if len(key) >= SHORTEST_TOKEN:
            self._stamp, self._digest = stamp, _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
