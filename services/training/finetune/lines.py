"""Log lines of the job and of who submits it."""

from __future__ import annotations

import json


def log(message: str, **fields: object) -> None:
    """One line of JSON."""
    print(json.dumps({"msg": message, **fields}), flush=True)
