"""`python -m somagent_vectors.optimize <shard> purge|keep`: builds the indexes of a shard that nobody else has open.

The schema comes as JSON on standard input. `purge` rewrites every segment that has a deleted point in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import qdrant_edge as edge

from somagent_vectors.schema import Schema

NICENESS = 10


def main() -> int:
    path, mode = sys.argv[1:]
    os.nice(NICENESS)
    schema = Schema.from_json(json.load(sys.stdin))
    if mode == "purge":
        eager = {**schema.optimizers, "deleted_threshold": 0.0, "vacuum_min_vector_number": 0}
        schema = dataclasses.replace(schema, settings={**schema.settings, "optimizers_config": eager})
    shard = edge.EdgeShard.load(path, schema.to_engine())
    shard.optimize()
    shard.flush()
    shard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
