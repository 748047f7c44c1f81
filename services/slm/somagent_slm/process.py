"""What the head's and the worker's processes share: how they are told to stop and how they speak."""

from __future__ import annotations

import json
import signal
import sys
import threading


def on_stop(stop: threading.Event) -> None:
    """Sets `stop` at SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def log(level: str, message: str, **fields: object) -> None:
    """Writes one JSON line to standard error."""
    print(json.dumps({"level": level, "service": "slm", "message": message, **fields}), file=sys.stderr, flush=True)
