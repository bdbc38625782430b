"""The Milvus rows of the bench: the search pymilvus sends, to the same static upstream as Qdrant's."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

MILVUS_SEARCH = "/milvus.proto.milvus.MilvusService/Search"


def write_milvus_body(folder: Path, collection: str, dim: int) -> Path:
    """A framed Search with one vector (dim,), made by pymilvus itself."""
    vector = np.random.default_rng(dim).normal(size=(1, dim)).astype(np.float32)
    message = Prepare.search_requests_with_expr(collection, "vector", {"metric_type": "COSINE"}, 10, vector.tolist())
    return write_framed(folder / f"milvus-{collection}-{dim}.body", message.SerializeToString())


def write_milvus_answer(root: Path) -> None:
    """What the upstream answers every search with: the same ten hits."""
    ids = schema_pb2.IDs(int_id=schema_pb2.LongArray(data=range(10)))
    results = schema_pb2.SearchResultData(num_queries=1, top_k=10, scores=[0.5] * 10, ids=ids, topks=[10])
    answer = root / MILVUS_SEARCH.strip("/")
    answer.parent.mkdir(parents=True, exist_ok=True)
    write_framed(answer, milvus_pb2.SearchResults(results=results).SerializeToString())


def write_framed(path: Path, message: bytes) -> Path:
    path.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    return path


def as_milvus(config: dict[str, Any], port: int) -> dict[str, Any]:
    """The configuration of a Qdrant case for Milvus."""
    changed: dict[str, Any] = json.loads(json.dumps(config))
    changed["listen"] = {"milvus": f"127.0.0.1:{port}", "admin": config["listen"]["admin"]}
    changed["upstreams"]["main"]["kind"] = "milvus"
    return changed
