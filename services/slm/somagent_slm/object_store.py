"""Reads one bucket of an S3 store, with requests that are signed by Signature Version 4.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import urllib.request
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

_REGION = "us-east-1"
_TIMEOUT_SECONDS = 30
_NO_BODY = hashlib.sha256(b"").hexdigest()
_NAMES = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}
# Far more than any document of ours; a model is streamed.
_MOST_BYTES = 1024 * 1024


class NotThere(OSError):
    """The store answers, and has no such object."""


class Bucket:
    """`url` is that of the bucket; `credentials` a folder with `username` and `password`, read for each request."""

    def __init__(self, url: str, credentials: Path, authority: Path) -> None:
        self._url, self._credentials = url, credentials
        self._context = ssl.create_default_context(cafile=str(authority))

    def open(self, key: str) -> HTTPResponse:
        """The object as a stream, to be closed. Raises NotThere, or OSError when there is no answer."""
        return self._get(f"{self._url}/{quote(key, safe='/-_.~')}")

    def read(self, key: str) -> bytes:
        """A small object. Raises OSError."""
        with self.open(key) as response:
            return response.read(_MOST_BYTES)

    def listed(self, prefix: str) -> dict[str, str]:
        """Each key below the prefix and the ETag of its content. Raises OSError.

        Times are left out: they are whole seconds, so what is written twice in one second would look unchanged.
        """
        found: dict[str, str] = {}
        after = ""
        while True:
            query = urlencode(sorted({"list-type": "2", "prefix": prefix, "start-after": after}.items()), quote_via=quote, safe="")
            with self._get(f"{self._url}?{query}") as response:
                answer = ElementTree.parse(response).getroot()  # noqa: S314 - of our own store, over TLS
            for entry in answer.iterfind("s3:Contents", _NAMES):
                after = entry.findtext("s3:Key", "", _NAMES)
                found[after] = entry.findtext("s3:ETag", "", _NAMES)
            if answer.findtext("s3:IsTruncated", "false", _NAMES) != "true":
                return found

    def _get(self, url: str) -> HTTPResponse:
        access, secret = ((self._credentials / name).read_text().strip() for name in ("username", "password"))
        headers = _signed(url, access, secret, datetime.now(UTC))
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - an https address, checked by the settings
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self._context)  # noqa: S310
        except HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                raise NotThere(f"{urlsplit(url).path} is not in the store") from error
            raise


def _signed(url: str, access: str, secret: str, now: datetime) -> dict[str, str]:
    parts = urlsplit(url)
    time = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": parts.netloc, "x-amz-content-sha256": _NO_BODY, "x-amz-date": time}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(("GET", parts.path, parts.query, lines, names, _NO_BODY))
    scope = f"{time[:8]}/{_REGION}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": credential}
