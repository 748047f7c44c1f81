"""Who may ask: the holder of a token in a file, or a pod of the cluster that shows its workload identity."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import jwt

from somagent_slm.environment import SHORTEST_TOKEN, SettingsError, Workloads
from somagent_slm.errors import ApiError

# Asymmetric only: with HS256 a public key would pass as the secret.
ALGORITHMS = ["RS256", "ES256", "ES384", "ES512"]
CLOCK_SKEW_SECONDS = 5
FETCH_SECONDS = 3
KEYS_SECONDS = 300


# A token that was good is believed this long without its signature being verified again, and never beyond its end.
REMEMBERED_SECONDS = 30
MOST_REMEMBERED = 1024


class Verifier(Protocol):
    """Decides about the `Authorization` header of a request. `slow` says that it may ask a server, and so take seconds."""

    slow: bool

    def verify(self, header: str | None) -> float | None:
        """Until when (seconds since the epoch) the header is good; None when it is not."""


class AdmissionSettings(Protocol):
    """What admission needs of a server's settings: one of the two is set."""

    @property
    def workloads(self) -> Workloads | None: ...

    @property
    def api_key_file(self) -> Path | None: ...


class Admission:
    """Asks a slow verifier in a thread, because streams must not wait for it, and remembers a good token for a while.

    Belongs to one event loop.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self._known: dict[bytes, float] = {}

    async def accepts(self, header: str | None) -> bool:
        """Whether the header carries a good token. Raises ApiError 503 while that can't be found out."""
        if header is None:
            return False
        digest = _digest(header.encode())
        if self._known.get(digest, 0) > time.time():
            return True
        if self.verifier.slow:
            good_until = await asyncio.to_thread(self.verifier.verify, header)
        else:
            good_until = self.verifier.verify(header)
        if good_until is None:
            return False
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = min(good_until, time.time() + REMEMBERED_SECONDS)
        return True


def admission(settings: AdmissionSettings) -> Admission:
    """The one way of admission that the settings name."""
    if settings.workloads is not None:
        return Admission(WorkloadTokens(settings.workloads))
    if settings.api_key_file is not None:
        return Admission(BearerToken(settings.api_key_file))
    raise SettingsError("neither a workload audience nor an API key file is set; set one")


class BearerToken:
    """Accepts the token in `path`; a rotated file is read again at the next request."""

    slow = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._digest = b""
        self._refresh()

    def verify(self, header: str | None) -> float | None:
        """Zero when the header carries the token: its file may change at any moment, so it is not to be remembered."""
        return 0.0 if self.accepts(header) else None

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


class WorkloadTokens:
    """Accepts projected ServiceAccount tokens of listed pods, verified with the keys of the cluster.

    Source: https://kubernetes.io/docs/concepts/security/service-accounts/#authenticating-credentials
    """

    slow = True

    def __init__(self, workloads: Workloads) -> None:
        self._workloads = workloads
        self._issuer: str | None = None
        self._keys = _ClusterKeys(workloads)

    def accepts(self, header: str | None) -> bool:
        """Whether the header carries a good token. Raises ApiError 503 while the keys can't be fetched."""
        return self.verify(header) is not None

    def verify(self, header: str | None) -> float | None:
        """The end of the token's life when it is good. Raises ApiError 503 while the keys can't be fetched."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        try:
            self._issuer = self._issuer or self._keys.issuer()
            # With the key goes its algorithm: a token that names another one is refused.
            claims = self._verify(token, self._keys.get_signing_key_from_jwt(token))
        except (jwt.PyJWKClientConnectionError, jwt.PyJWKSetError, OSError) as error:
            raise ApiError(
                503, "the keys of the cluster cannot be fetched; try again", kind="server_error", code="keys_unavailable"
            ) from error
        except (jwt.PyJWTError, ValueError):
            return None
        return float(claims["exp"]) if claims["sub"] in self._workloads.callers else None

    def _verify(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._workloads.audience,
            issuer=self._issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": ["exp", "iat", "sub", "aud", "iss"]},
        )


class _ClusterKeys(jwt.PyJWKClient):
    """The keys of the API server, which it shows to ServiceAccounts only."""

    def __init__(self, workloads: Workloads) -> None:
        self._base = workloads.kubernetes_url
        self._directory = workloads.kubernetes_directory
        self._context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
        super().__init__(
            f"{self._base}/openid/v1/jwks", lifespan=KEYS_SECONDS, timeout=FETCH_SECONDS, ssl_context=self._context
        )

    def issuer(self) -> str:
        """What tokens of this cluster name as their issuer."""
        request = urllib.request.Request(  # noqa: S310 - an https address, checked by the settings
            f"{self._base}/.well-known/openid-configuration", headers=self._authorization()
        )
        with urllib.request.urlopen(request, timeout=FETCH_SECONDS, context=self._context) as response:  # noqa: S310
            try:
                return str(json.load(response)["issuer"])
            except (KeyError, ValueError) as error:
                raise OSError("the API server describes no issuer") from error

    def fetch_data(self) -> Any:
        self.headers = self._authorization()
        return super().fetch_data()

    def _authorization(self) -> dict[str, str]:
        # The kubelet renews the token: it is read for each use.
        return {"Authorization": f"Bearer {(self._directory / 'token').read_text().strip()}"}


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
