"""The embedded Milvus: what is written survives a kill, concurrent writers do not hurt, and what is taken is told."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.engine.collection import Collection
from pymilvus import DataType, MilvusClient

from crossfade.backends.embedded.milvus import MilvusServer
from tests.ports import free_ports
from tests.proxy.milvus_serving import start_embedded
from tests.proxy.serving import ROOT

DIM = 4


def rows(start: int, end: int) -> list[dict[str, object]]:
    return [{"id": at, "vector": np.full(DIM, at + 1.0).tolist(), "n": at} for at in range(start, end)]


def test_what_was_written_is_searched_after_a_kill_without_loading_it_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with start_embedded(tmp_path / "data", port) as process:
        client = MilvusClient(f"http://127.0.0.1:{port}")
        client.create_database("tenant")
        for database in ("default", "tenant"):
            own = MilvusClient(f"http://127.0.0.1:{port}", db_name=database)
            own.create_collection("docs", dimension=DIM)
            own.insert("docs", rows(0, 20))
        process.kill()
        process.wait()
    (port,) = free_ports(1)
    with start_embedded(tmp_path / "data", port):
        for database in ("default", "tenant"):
            own = MilvusClient(f"http://127.0.0.1:{port}", db_name=database)
            assert own.search("docs", [[5.0] * DIM], limit=20, output_fields=["n"])[0][0]["entity"]["n"] in range(20)
            assert own.query("docs", filter="", output_fields=["count(*)"])[0]["count(*)"] == 20


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    with MilvusServer(tmp_path / "data") as server:
        client = MilvusClient(f"http://127.0.0.1:{server.port}")
        client.create_collection("docs", dimension=DIM)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: client.insert("docs", rows(at * 10, at * 10 + 10)), range(30)))
        assert client.query("docs", filter="", output_fields=["count(*)"])[0]["count(*)"] == 300


def test_no_search_misses_rows_while_they_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_slowly(collection: Collection) -> Any:
        found = read(collection)
        time.sleep(0.05)  # it has looked at what is written out, and looks into memory next
        return found

    read = Collection._read_snapshot
    monkeypatch.setattr(Collection, "_read_snapshot", read_slowly)
    with MilvusServer(tmp_path / "data") as server:
        client = MilvusClient(f"http://127.0.0.1:{server.port}")
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")  # exact
        schema = client.create_schema(enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        client.create_collection("docs", schema=schema, index_params=index)
        counted = {"filter": "", "output_fields": ["count(*)"]}
        for start in range(0, 1000, 250):
            client.insert("docs", rows(start, start + 250))
            until = time.monotonic() + 0.6  # rows are written out half a second after they came
            while time.monotonic() < until:
                assert client.query("docs", **counted)[0]["count(*)"] == start + 250
        assert list((tmp_path / "data").rglob("*.parquet"))
        hits = client.search("docs", [[5.0] * DIM], limit=1000)[0]
        assert {hit["id"] for hit in hits} == set(range(1000))


def test_a_folder_or_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with MilvusServer(tmp_path / "data") as server:
        with pytest.raises(OSError, match="data cannot be opened"):
            MilvusServer(tmp_path / "data")
        with pytest.raises(OSError, match=f"127.0.0.1:{server.port} cannot be listened on"):
            MilvusServer(tmp_path / "other", port=server.port)
        command = [sys.executable, "-m", "crossfade.backends.embedded.milvus", "--data", str(tmp_path / "data")]
        done = subprocess.run([*command, "--grpc-port", "0"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "embedded Milvus: " in done.stderr
        assert "Traceback" not in done.stderr
