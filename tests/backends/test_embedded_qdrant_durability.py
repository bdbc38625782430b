"""What the embedded Qdrant keeps when its process is killed, stopped, orphaned, or indexing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.backends.embedded import QdrantServer

SIZE = 16
COMMAND = [sys.executable, "-m", "crossfade.backends.embedded", "--grpc-port", "0", "--rest-port", "0", "--data"]


class Process:
    """The server as a process of its own."""

    def __init__(self, data: Path, *options: str) -> None:
        self.child = subprocess.Popen([*COMMAND, str(data), *options], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        ready = self.child.stdout.readline().split()
        assert ready[:1] == ["ready:"], ready
        self.grpc_port, self.rest_port = (int(ready[place].rpartition(":")[2]) for place in (2, 4))

    def client(self) -> QdrantClient:
        return QdrantClient(
            host="127.0.0.1",
            port=self.rest_port,
            grpc_port=self.grpc_port,
            prefer_grpc=True,
            check_compatibility=False,
        )

    def end(self, number: signal.Signals) -> int:
        self.child.send_signal(number)
        return self.child.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*options: str) -> Process:
        started.append(Process(tmp_path / "data", *options))
        return started[-1]

    yield begin
    for process in started:
        if process.child.poll() is None:
            process.end(signal.SIGKILL)
        assert process.child.stdout is not None
        process.child.stdout.close()


def vector(number: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(number).normal(size=SIZE)]


def make(client: QdrantClient, **options: Any) -> None:
    client.create_collection("c", vectors_config=m.VectorParams(size=SIZE, distance=m.Distance.DOT), **options)


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds; fail when it does not in that time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def test_acknowledged_writes_survive_kill_9_in_the_middle_of_writing(start: Callable[..., Process]) -> None:
    process = start()
    client = process.client()
    make(client)
    client.create_payload_index("c", "n", m.PayloadSchemaType.INTEGER)
    client.update_collection_aliases(
        [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="c", alias_name="alias"))]
    )
    client.update_collection("c", hnsw_config=m.HnswConfigDiff(m=7))
    acknowledged: list[int] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 100_000):
                client.upsert("c", [m.PointStruct(id=number, vector=vector(number), payload={"n": number})], wait=False)
                acknowledged.append(number)
        except Exception:  # noqa: S110, BLE001, RUF100  # the server was killed under it: what this test is about
            pass

    writers = [threading.Thread(target=write, args=(first * 1_000_000,)) for first in range(3)]
    for writer in writers:
        writer.start()
    eventually(lambda: len(acknowledged) > 200)
    process.end(signal.SIGKILL)
    for writer in writers:
        writer.join()

    again = start().client()
    known = list(acknowledged)
    found = {point.id: point for point in again.retrieve("alias", known, with_vectors=True)}
    assert set(found) == set(known)
    for number in random.Random(1).sample(known, 20):
        assert found[number].payload == {"n": number}
        np.testing.assert_allclose(np.asarray(found[number].vector), vector(number), atol=1e-6)
    info = again.get_collection("c")
    assert info.config.hnsw_config.m == 7
    assert info.payload_schema["n"].data_type == m.PayloadSchemaType.INTEGER
    assert again.get_aliases().aliases == [m.AliasDescription(alias_name="alias", collection_name="c")]


def test_deleted_collections_stay_deleted_after_kill_9(start: Callable[..., Process]) -> None:
    process = start()
    client = process.client()
    make(client)
    client.create_collection("other", vectors_config={"v": m.VectorParams(size=3, distance=m.Distance.COSINE)})
    client.delete_collection("c")
    process.end(signal.SIGKILL)
    again = start().client()
    assert [collection.name for collection in again.get_collections().collections] == ["other"]
    assert not again.collection_exists("c")


def test_sigterm_fails_no_call_that_was_accepted_and_exits_cleanly(start: Callable[..., Process]) -> None:
    process = start()
    make(process.client())
    acknowledged: list[int] = []
    codes: set[Any] = set()

    def write(first: int) -> None:
        client = process.client()
        try:
            for number in range(first, first + 100_000, 50):
                points = [m.PointStruct(id=each, vector=vector(each)) for each in range(number, number + 50)]
                client.upsert("c", points)
                acknowledged.extend(point.id for point in points)  # type: ignore[misc]  # these ids are numbers
        except grpc.RpcError as error:
            codes.add(error.code())

    writers = [threading.Thread(target=write, args=(first * 1_000_000,)) for first in range(4)]
    for writer in writers:
        writer.start()
    eventually(lambda: len(acknowledged) > 1000)
    assert process.end(signal.SIGTERM) == 0
    for writer in writers:
        writer.join()
    refused = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}  # the latter before a thread took the call up
    assert codes <= refused
    stored = start().client().count("c").count
    assert stored == len(acknowledged), "a call was applied and not answered, or answered and not applied"


def test_a_data_folder_is_held_by_one_process(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start()
    second = subprocess.run([*COMMAND, str(tmp_path / "data")], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"in use by another embedded Qdrant (process {process.child.pid})" in second.stderr


def test_a_taken_port_is_named(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start()
    with pytest.raises(OSError, match=f"REST port 127.0.0.1:{process.rest_port} cannot be used"):
        QdrantServer(tmp_path / "other", rest_port=process.rest_port).start()
    with pytest.raises(OSError, match=f"gRPC port 127.0.0.1:{process.grpc_port} cannot be used"):
        QdrantServer(tmp_path / "other", grpc_port=process.grpc_port).start()
    with QdrantServer(tmp_path / "other") as server:  # a failed start lets the folder go
        assert server.rest_port > 0


def test_with_parent_the_server_ends_when_its_parent_does(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-c", script, *COMMAND, str(tmp_path / "data"), "--with-parent"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pid = int(said.split()[0])
    assert "ready:" in said
    eventually(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_an_unreadable_catalog_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{nonsense")
    with pytest.raises(ValueError, match=r"catalog\.json: not a catalog"):
        QdrantServer(tmp_path).start()
    (tmp_path / "catalog.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="catalog format 99, this version reads 1"):
        QdrantServer(tmp_path).start()


def test_indexing_loses_no_write_and_survives_a_restart(tmp_path: Path) -> None:
    with QdrantServer(tmp_path) as server:
        client = connect(server)
        make(client, optimizers_config=m.OptimizersConfigDiff(indexing_threshold=20))
        client.upsert("c", [m.PointStruct(id=number, vector=vector(number)) for number in range(1500)])
        eventually(lambda: client.get_collection("c").status == m.CollectionStatus.YELLOW)
        client.upsert("c", [m.PointStruct(id=5000, vector=vector(5000), payload={"late": True})])
        client.delete("c", [3])
        client.set_payload("c", {"seen": 1}, points=[7])
        eventually(lambda: (client.get_collection("c").indexed_vectors_count or 0) >= 1400)
        check_late_writes(client)
        eventually(lambda: len(os.listdir(tmp_path / "shards")) == 1)
    with QdrantServer(tmp_path) as server:
        client = connect(server)
        assert (client.get_collection("c").indexed_vectors_count or 0) >= 1400
        check_late_writes(client)


def check_late_writes(client: QdrantClient) -> None:
    assert client.count("c").count == 1500
    assert [point.payload for point in client.retrieve("c", [5000, 7, 3])] == [{"late": True}, {"seen": 1}]
    assert client.query_points("c", query=vector(5000), limit=1).points[0].id == 5000


def test_reads_and_writes_from_many_threads_at_once(tmp_path: Path) -> None:
    with QdrantServer(tmp_path) as server:
        make(connect(server))
        failures: list[Exception] = []

        def work(worker: int) -> None:
            client = connect(server, grpc=worker % 2 == 0)
            try:
                for number in range(worker * 1000, worker * 1000 + 30):
                    client.upsert("c", [m.PointStruct(id=number, vector=vector(number))])
                    assert client.retrieve("c", [number])[0].id == number
                    assert client.query_points("c", query=vector(number), limit=3).points
            except Exception as error:  # noqa: BLE001, RUF100  # reported by the test's own thread
                failures.append(error)

        workers = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        assert failures == []
        assert connect(server).count("c").count == 240


def connect(server: QdrantServer, grpc: bool = True) -> QdrantClient:
    return QdrantClient(
        host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, prefer_grpc=grpc, check_compatibility=False
    )
