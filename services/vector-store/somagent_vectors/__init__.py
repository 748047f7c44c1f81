"""Qdrant's REST API in front of Qdrant's own engine, embedded (`qdrant-edge-py`)."""

API_VERSION = "1.18.0"
"""The version of Qdrant whose API is answered; clients compare it with their own."""
