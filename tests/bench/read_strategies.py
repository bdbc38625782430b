"""What each strategy costs one client, one request at a time: p50 in ms, through `crossfade serve` over gRPC.

Run from the repository's root as `python -m tests.bench.read_strategies [--points N] [--rounds N]`. Points of random
vectors, half of them in the target, each with a payload of 2 kB; both indexes are searched exactly, by the embedded
Qdrant. The last rows ask the database itself: what seeing a payload costs once for ten hits, and with every candidate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.adapters.base import Float32
from tests.proxy.migrating import OLD, TARGET, start_migrating, unit
from tests.proxy.toy_adapters import save_toy

DIMS = 384, 384
SETTINGS = f"""
models: {{old: {{dim: {DIMS[0]}}}, new: {{dim: {DIMS[1]}}}}}
collections: {{docs: {{index_model: old, query_model: new, adapters: {{new: a}}}}}}
"""


def fill(client: QdrantClient, name: str, vectors: Float32, rows: range) -> None:
    text = "x" * 2000
    for start in range(0, len(rows), 500):
        points = [
            m.PointStruct(id=row, vector=vectors[row].tolist(), payload={"row": row, "text": text})
            for row in rows[start : start + 500]
        ]
        client.upsert(name, points, wait=True)


def timed(client: QdrantClient, queries: list[list[float]], **asked: Any) -> float:
    """The median of asking each, in ms; the first few warm up."""
    taken = []
    for query in [*queries[:20], *queries]:
        began = time.perf_counter()
        client.query_points(OLD, query, **asked)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    numbers = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        adapter = save_toy(Path(place) / "a", dims=DIMS)
        new = unit(numbers.normal(size=(arguments.points, DIMS[1])))
        old = unit(adapter.document.apply(new))
        with start_migrating(Path(place), SETTINGS, dims=DIMS) as migrating:
            fill(migrating.direct, OLD, old, range(arguments.points))
            fill(migrating.direct, TARGET, new, range(0, arguments.points, 2))
            migrating.write_sample(new, old, range(0, min(arguments.points, 4_000), 2))
            migrating.move(migrated=0.5)
            queries = unit(numbers.normal(size=(arguments.rounds, DIMS[1]))).tolist()
            mapped = adapter.query.apply(np.array(queries, np.float32)).tolist()
            figures: dict[str, Any] = {}
            for payload in (False, True):
                for strategy in ("adapt", "crossfade", "native"):
                    client = migrating.client(grpc=True, x_crossfade_strategy=strategy)
                    name = f"{strategy}{', payload' if payload else ''}"
                    figures[name] = timed(client, queries, with_payload=payload)
            few = m.Filter(must=[m.HasIdCondition(has_id=list(range(0, 1000, 100)))])
            direct = migrating.direct
            figures["direct, 10 hits"] = timed(direct, mapped, with_payload=False)
            figures["direct, 10 hits by id, payload"] = timed(direct, mapped, with_payload=True, query_filter=few)
            figures["direct, 200 hits"] = timed(direct, mapped, with_payload=False, limit=200)
            figures["direct, 200 hits, payload"] = timed(direct, mapped, with_payload=True, limit=200)
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
