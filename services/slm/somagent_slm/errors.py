"""Error bodies as the OpenAI API gives them (https://platform.openai.com/docs/guides/error-codes)."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer with an error status; `message` tells the caller what to change."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        parameter: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """`retry_after` is in whole seconds."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": parameter, "code": code},
        }

    @classmethod
    def of(cls, status: int, body: dict[str, Any]) -> ApiError:
        """The error that another process has described."""
        error = cls(status, body["error"]["message"])
        error.body = body
        return error
