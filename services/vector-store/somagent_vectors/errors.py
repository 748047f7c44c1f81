"""Errors in Qdrant's own shape: `{"status": {"error": …}, "time": …}`."""

from __future__ import annotations


class QdrantError(Exception):
    """An answer with an error status; the message tells the caller what to change."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def wrong_input(message: str) -> QdrantError:
    return QdrantError(400, f"Wrong input: {message}")


def bad_json(message: str) -> QdrantError:
    return QdrantError(400, f"Format error in JSON body: {message}")


def not_found(message: str) -> QdrantError:
    return QdrantError(404, f"Not found: {message}")


def unsupported(what: str, fix: str) -> QdrantError:
    """For what Qdrant's server does and this front or its engine does not. Never answered with a made-up result."""
    return QdrantError(501, f"Not implemented: {what} is not available on this server; {fix}")
