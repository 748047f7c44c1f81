"""Bearer authentication against a token in a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from somagent_slm.settings import SHORTEST_TOKEN, SettingsError


class BearerToken:
    """Accepts the token in `path`; a rotated file is read again at the next request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._digest = b""
        self._refresh()

    def accepts(self, header: str | None) -> bool:
        """Whether an `Authorization` header value carries the token."""
        self._refresh()
        scheme, _, token = (header or "").partition(" ")
        # Equal-length digests: neither the length nor the first wrong byte shows in the time it takes.
        matches = hmac.compare_digest(_digest(token.strip().encode()), self._digest)
        return matches and scheme.lower() == "bearer"

    def _refresh(self) -> None:
        stamp = self._path.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        token = self._path.read_bytes().strip()
        if len(token) < SHORTEST_TOKEN:
            raise SettingsError(
                f"the token in {self._path} has {len(token)} characters; write at least {SHORTEST_TOKEN} random ones"
            )
        self._stamp, self._digest = stamp, _digest(token)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
