"""What capturing costs a write: `python -m tests.bench.bench_capture` writes build/capture.json.

Three ways to the same embedded Qdrant, one after the other for each write, so that whatever else the machine does falls
on all alike: a Crossfade without migrations, one with a migration of another collection, and that one's own collection,
whose writes are captured. Nothing is copied meanwhile. One write at a time, then 16 at once. A captured write waits for
one commit to the disk: what that costs by itself stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from qdrant_client import grpc as qdrant

from tests.ports import free_ports
from tests.proxy.capture_stage import open_stage
from tests.proxy.serving import Serving, start_serving, wait_until

DIM, AT_ONCE = 16, 16
PLAIN = "models: {old: {dim: 16}}\ncollections: {docs: {index_model: old}, others: {index_model: old}}"
Send = Callable[[int], Any]


@contextmanager
def open_upstream(folder: Path) -> Iterator[str]:
    """An embedded Qdrant in a process of its own, with two collections; its section of a configuration."""
    grpc_port, rest_port = free_ports(2)
    ports = ("--grpc-port", str(grpc_port), "--rest-port", str(rest_port))
    process = subprocess.Popen([sys.executable, "-m", "crossfade.backends.embedded", "--data", str(folder), *ports])
    try:
        rest = f"http://127.0.0.1:{rest_port}"
        wait_until(lambda: _answers(rest), 30, "the embedded Qdrant answers")
        for name in ("docs", "others"):
            body = {"vectors": {"size": DIM, "distance": "Cosine"}}
            httpx.put(f"{rest}/collections/{name}", json=body, timeout=30).raise_for_status()
        yield f'grpc: "127.0.0.1:{grpc_port}", rest: "{rest}"'
    finally:
        process.terminate()
        process.wait()


def _answers(rest: str) -> bool:
    try:
        return httpx.get(f"{rest}/collections").status_code == 200
    except httpx.TransportError:
        return False


def make_send(serving: Serving, kind: str, collection: str, stack: ExitStack) -> Send:
    """One way to send the n-th write of a kind."""
    channel = stack.enter_context(serving.channel())
    header = [("x-embedding-model", "old")]
    if kind == "delete":
        call = channel.unary_unary("/qdrant.Points/Delete")

        def delete(at: int) -> Any:
            ids = qdrant.PointsIdsList(ids=[qdrant.PointId(num=at)])
            selector = qdrant.PointsSelector(points=ids)
            message = qdrant.DeletePoints(collection_name=collection, points=selector, wait=True)
            return call(message.SerializeToString(), timeout=60)

        return delete
    call = channel.unary_unary("/qdrant.Points/Upsert")
    many = 1 if kind == "upsert" else 100
    vector = np.random.default_rng(0).normal(size=DIM).tolist()
    dense = qdrant.Vectors(vector=qdrant.Vector(dense=qdrant.DenseVector(data=vector)))

    def upsert(at: int) -> Any:
        points = [qdrant.PointStruct(id=qdrant.PointId(num=at * many + one), vectors=dense) for one in range(many)]
        message = qdrant.UpsertPoints(collection_name=collection, points=points, wait=True)
        return call(message.SerializeToString(), metadata=header, timeout=60)

    return upsert


def measure(sends: dict[str, Send], count: int, at_once: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a write each way: the ways in turn, with one at once after each write, else after a tenth of them
    (two of them go to one worker, whose queue would be the longer one)."""
    took: dict[str, list[float]] = {way: [] for way in sends}
    block = at_once if at_once == 1 else max(at_once, count // 10)

    def work(way: str, first: int, end: int) -> None:
        for at in range(first, end, at_once):
            began = time.perf_counter()
            sends[way](at)
            took[way].append((time.perf_counter() - began) * 1000)

    with ThreadPoolExecutor(at_once) as pool:
        for first in range(0, count, block):
            for way in sends:
                end = min(count, first + block)
                for done in [pool.submit(work, way, first + at, end) for at in range(at_once)]:
                    done.result()
    return {way: {f"p{q}": round(float(np.percentile(rows, q)), 3) for q in (50, 95, 99)} for way, rows in took.items()}


def measure_disk(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds until 4 KiB in the middle of a file are on the disk, which is what a commit cannot do without."""
    took = []
    with (folder / "bare").open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for at in range(count):
            file.seek(4096 * (at % 256))
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return {f"p{q}": round(float(np.percentile(took, q)), 3) for q in (50, 95, 99)}


def run(count: int) -> dict[str, Any]:
    """Every kind of write, alone and at once."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crossfade-capture-")))
        for name in ("data", "plain", "stage"):
            (folder / name).mkdir()
        found["a bare commit"] = measure_disk(folder, count)
        upstream = stack.enter_context(open_upstream(folder / "data"))
        plain = stack.enter_context(start_serving(folder / "plain", upstream, PLAIN))
        stage = stack.enter_context(open_stage(folder / "stage", upstream))
        for kind in ("upsert", "upsert-100", "delete"):
            sends = {
                "plain": make_send(plain, kind, "others", stack),
                "bystander": make_send(stage.serving, kind, "others", stack),
                "captured": make_send(stage.serving, kind, "docs", stack),
            }
            measure(sends, 20, 1)  # warm
            for at_once in (1, AT_ONCE):
                part = measure(sends, count if kind != "upsert-100" else count // 4, at_once)
                ratio = {way: round(part[way]["p50"] / part["plain"]["p50"], 2) for way in part}
                found[f"{kind}, {at_once} at once"] = {**part, "p50 to plain": ratio}
                stage.forget()
    return found


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="writes of each kind and way")
    parser.add_argument("--out", type=Path, default=Path("build/capture.json"))
    given = parser.parse_args()
    found = run(given.count)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print("a bare commit:", found.pop("a bare commit"))  # noqa: T201  # what a bench is run for
    for name, part in found.items():
        cells = " | ".join(f"{way} {part[way]['p50']:.2f} ms" for way in ("plain", "bystander", "captured"))
        print(f"{name}: {cells} | {part['p50 to plain']}")  # noqa: T201  # what a bench is run for


if __name__ == "__main__":
    main()
