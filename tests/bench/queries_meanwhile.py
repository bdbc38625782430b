"""What queries cost while their collection is re-encoded: `python -m tests.bench.queries_meanwhile`.

An embedded Qdrant, `crossfade serve` and one client; the encoder is elsewhere (50 ms a call and 1 ms a text, which cost
this machine nothing). The re-encode is paused and resumed in turn, so that whatever else the machine does falls on both
alike; before it all the same is asked without any migration. Milliseconds of one query after the other, over gRPC;
every second one goes past Crossfade: what those wait for is the database, which here works in one Python.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import grpc
import numpy as np
import qdrant_client.grpc as qdrant
from qdrant_client import QdrantClient, models

from crossfade.adapters.base import Float32
from crossfade.proxy.admin_client import AdminClient
from tests.chaos.upstream import Upstream
from tests.proxy.serving import Channel, start_serving, wait_until
from tests.proxy.toy_adapters import save_toy

DIM: Final = 384
SETTINGS: Final = f"""
models:
  old: {{dim: {DIM}}}
  new: {{dim: {DIM}, encoder: {{python: {{function: "tests.bench.reencode_encoders:elsewhere", concurrency: 2}}}}}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {{new: adapter}}
    text: payload.text
    migrate: {{to: new, strategy: STRATEGY}}
"""


def fill(client: QdrantClient, points: int) -> None:
    """The old collection: random vectors, searched exactly, texts of 600 bytes."""
    client.create_collection("docs", models.VectorParams(size=DIM, distance=models.Distance.COSINE))
    rows = np.random.default_rng(0).normal(size=(points, DIM)).astype(np.float32)
    for first in range(0, points, 1000):
        ids: list[int | str | UUID] = list(range(first, min(points, first + 1000)))
        texts = [{"text": f"text {at} " + "x" * 600} for at in ids]
        client.upsert(
            "docs", models.Batch(ids=ids, vectors=rows[first : first + 1000].tolist(), payloads=texts), wait=True
        )


def make_ask(channel: Channel) -> Callable[[], None]:
    """One search for ten hits."""
    rows: Float32 = np.random.default_rng(1).normal(size=(64, DIM)).astype(np.float32)
    bodies = [
        qdrant.SearchPoints(collection_name="docs", vector=row.tolist(), limit=10).SerializeToString() for row in rows
    ]
    call = channel.unary_unary("/qdrant.Points/Search")
    turn = iter(range(sys.maxsize))
    return lambda: call(bodies[next(turn) % len(bodies)], timeout=60)


Took = dict[str, list[float]]


def measure(asks: dict[str, Callable[[], None]], seconds: float, took: Took) -> Took:
    """Add the milliseconds of each query in so many seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for way, ask in asks.items():
            began = time.perf_counter()
            ask()
            took.setdefault(way, []).append((time.perf_counter() - began) * 1000)
    return took


def told(took: Took) -> dict[str, dict[str, float]]:
    """Quantiles."""
    return {
        way: {f"p{q}": round(float(np.percentile(rows, q)), 2) for q in (50, 95, 99)} | {"queries": len(rows)}
        for way, rows in took.items()
    }


def run(points: int, rounds: int, seconds: float, strategy: str, pace: dict[str, Any]) -> dict[str, Any]:
    """One migration, paused and resumed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crossfade-meanwhile-")))
        upstream = stack.enter_context(Upstream(folder / "data"))
        place = f'grpc: "127.0.0.1:{upstream.grpc_port}", rest: "http://127.0.0.1:{upstream.rest_port}"'
        direct = QdrantClient(port=upstream.rest_port, grpc_port=upstream.grpc_port, prefer_grpc=True, timeout=60)
        stack.callback(direct.close)
        fill(direct, points)
        save_toy(folder / "adapter", dims=(DIM, DIM))
        serving = stack.enter_context(start_serving(folder, place, SETTINGS.replace("STRATEGY", strategy)))
        past = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{upstream.grpc_port}"))
        asks = {"through": make_ask(stack.enter_context(serving.channel())), "past": make_ask(past)}
        measure(asks, 1.0, {})
        before = measure(asks, seconds * rounds, {})
        admin = AdminClient(serving.admin)
        admin.say("docs", "start", {})
        wait_until(lambda: admin.get("docs")["state"] == "BACKFILLING", 60, "it re-encodes")
        if pace:
            admin.say("docs", "set", {"pace": pace})
        paused: Took = {}
        running: Took = {}
        copied = []
        for _ in range(rounds):
            admin.say("docs", "pause", {})
            time.sleep(1.0)
            measure(asks, seconds, paused)
            admin.say("docs", "resume", {})
            time.sleep(0.5)
            start = admin.get("docs")["copied"]
            measure(asks, seconds, running)
            copied.append((admin.get("docs")["copied"] - start) / seconds)
        state = admin.get("docs")["state"]
        assert state == "BACKFILLING", f"it was {state} before the end: more points are needed"
    figures = {"without": told(before), "paused": told(paused), "running": told(running)}
    ratio = {
        way: {q: round(figures["running"][way][q] / figures["paused"][way][q], 2) for q in ("p50", "p99")}
        for way in asks
    }
    return {**figures, "running to paused": ratio, "points a second": round(float(np.median(copied)), 1)}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each part of a round")
    parser.add_argument("--strategies", nargs="*", default=["adapt", "crossfade"])
    parser.add_argument("--pace", type=json.loads, default={}, help="limits of the re-encode, as JSON")
    parser.add_argument("--out", type=Path, default=Path("build/meanwhile.json"))
    given = parser.parse_args()
    found = {one: run(given.points, given.rounds, given.seconds, one, given.pace) for one in given.strategies}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))  # noqa: T201 # what a bench is run for


if __name__ == "__main__":
    main()
