"""What a 10,000 x 1536 upsert in flight does to everybody else's queries; run by hand.

`PYTHONPATH=. python tests/bench/large_upsert.py`: one worker, one client asking mapped 384-dimensional searches one
after the other: alone, then while another process sends the upsert again and again, first to the database itself (what
sharing the machine and the database costs), then through Crossfade. The target is a p99 within 2x.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from qdrant_client import grpc as qdrant

from crossfade.adapters.base import Adapter, Card, Float32, PairsCard
from crossfade.adapters.linear import LinearMap
from crossfade.adapters.store import save_adapter
from tests.bench.bench_proxy import running_upstream
from tests.ports import free_ports
from tests.proxy.serving import OPTIONS, Channel, start_serving

SETTINGS = """
models: {old: {dim: 1536}, new: {dim: 1536}, small: {dim: 384}, smaller: {dim: 384}}
collections:
  large: {index_model: old, query_model: new, adapters: {new: adapters/large}}
  docs: {index_model: smaller, query_model: small, adapters: {small: adapters/small}}
"""


def main() -> None:
    """Measure, and print one line a phase."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=15)
    options.add_argument("--points", type=int, default=10_000)
    options.add_argument("--pause", type=float, default=0.0, help="seconds between two upserts")
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp())
    save_random(folder / "adapters" / "large", "new", "old", 1536)
    save_random(folder / "adapters" / "small", "small", "smaller", 384)
    (port,) = free_ports(1)
    upstream_address = f"127.0.0.1:{port}"
    (folder / "root" / "qdrant.Points").mkdir(parents=True)
    (folder / "root" / "qdrant.Points" / "Upsert").write_bytes(bytes(5))
    with (
        running_upstream(folder, port),
        start_serving(folder, f'grpc: "{upstream_address}", rest: "http://127.0.0.1:1"', SETTINGS) as serving,
    ):
        address = f"127.0.0.1:{serving.grpc_port}"
        phases = {"alone": measure(address, asked.seconds)}
        for name, place in (("past Crossfade", upstream_address), ("through Crossfade", address)):
            sent = multiprocessing.Value("i", 0)
            sender = multiprocessing.Process(target=send, args=(place, asked.points, asked.pause, sent), daemon=True)
            sender.start()
            while sent.value == 0:
                time.sleep(0.1)
            before = sent.value
            taken = measure(address, asked.seconds)
            phases[f"beside {sent.value - before} upserts of {asked.points} x 1536 {name}"] = taken
            sender.terminate()
            sender.join()
    alone = np.percentile(phases["alone"], 99)
    for name, taken in phases.items():
        middle, late, last = np.percentile(taken, [50, 99, 100])
        figures = f"p50 {middle:.2f} ms, p99 {late:.2f} ms ({late / alone:.1f}x), max {last:.1f} ms"
        print(f"{name}: {len(taken)} searches, {figures}")  # noqa: T201  # a program's figures


def save_random(path: Path, source: str, target: str, dim: int) -> None:
    numbers = np.random.default_rng(0)

    def random_map() -> LinearMap:
        weight: Float32 = numbers.normal(scale=1 / 40, size=(dim, dim)).astype(np.float32)
        return LinearMap(weight, np.zeros(dim, np.float32))

    card = Card(source, target, dim, dim, "random", PairsCard(0))
    save_adapter(Adapter(card, random_map(), random_map(), random_map()), path)


def send(address: str, points: int, pause: float, sent: multiprocessing.sharedctypes.Synchronized[int]) -> None:
    """Upsert again and again, with a pause so that the measured ones are few and far between or one after the other."""
    rows = np.random.default_rng(1).normal(size=(points, 1536)).astype(np.float32)
    message = qdrant.UpsertPoints(collection_name="large")
    for at, row in enumerate(rows):
        vector = qdrant.Vector(dense=qdrant.DenseVector(data=row))
        message.points.add(id=qdrant.PointId(num=at), vectors=qdrant.Vectors(vector=vector))
    body = message.SerializeToString()
    channel: Channel
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        upsert = channel.unary_unary("/qdrant.Points/Upsert")
        while True:
            upsert(body, metadata=(("x-embedding-model", "new"),), timeout=120)
            sent.value += 1
            time.sleep(pause)


def measure(address: str, seconds: float) -> list[float]:
    """Round trips of searches, in milliseconds, about 200 a second."""
    body = qdrant.SearchPoints(collection_name="docs", vector=np.full(384, 0.05), limit=3).SerializeToString()
    taken = []
    channel: Channel
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        search = channel.unary_unary("/qdrant.Points/Search")
        search(body, timeout=60)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            started = time.perf_counter()
            search(body, timeout=60)
            taken.append((time.perf_counter() - started) * 1000)
            time.sleep(0.004)
    return taken


if __name__ == "__main__":
    main()
