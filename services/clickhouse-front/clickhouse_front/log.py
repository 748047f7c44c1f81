"""One JSON line per event, on standard error. Statements and passwords are never written."""

from __future__ import annotations

import json
import sys
import time


def log(level: str, message: str, **fields: object) -> None:
    line = {"level": level, "time": int(time.time() * 1000), "service": "clickhouse", **fields, "msg": message}
    print(json.dumps(line), file=sys.stderr, flush=True)
