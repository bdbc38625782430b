"""The demo's Milvus: the embedded one, which has no REST, and pymilvus as it comes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from .demo_database import DEPTH, HOST, Database, Float32, Kind, Place, Ports, Refused
from .demo_text import Package

_BATCH = 256
_START_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Client:
    """See demo_database.Client."""

    client: MilvusClient

    def build(self, collection: str, packages: Sequence[Package], vectors: Float32) -> None:
        schema = self.client.create_schema(enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")  # exact: what differs is not the index's
        self.client.create_collection(collection, schema=schema, index_params=index)
        for first in range(0, len(packages), _BATCH):
            rows = [
                {"id": at, "vector": vectors[at].tolist(), "name": one.name, "text": one.description}
                for at, one in enumerate(packages[first : first + _BATCH], start=first)
            ]
            self.client.insert(collection, rows)

    def ask(self, collection: str, vector: list[float]) -> list[int]:
        try:
            (hits,) = self.client.search(collection, [vector], limit=DEPTH, output_fields=["name"])
        except MilvusException as error:
            raise Refused(error.message) from error
        return [int(hit["id"]) for hit in hits]


class _Milvus:
    """See demo_database.Database."""

    kind: Kind = "milvus"
    title = "Milvus"
    transports: Sequence[str] = ("gRPC",)
    one_port = True

    def listen(self, front: Place) -> str:
        return f'milvus: "{HOST}:{front.grpc}"'

    def upstream(self, direct: Place) -> str:
        return f'milvus: {{kind: milvus, grpc: "{HOST}:{direct.grpc}"}}'

    def command(self, data: Path, direct: Place) -> list[str]:
        command = [sys.executable, "-m", "crossfade.backends.embedded.milvus", "--data", str(data), "--with-parent"]
        return [*command, "--grpc-port", str(direct.grpc)]

    def is_ready(self, direct: Place) -> bool:
        with grpc.insecure_channel(f"{HOST}:{direct.grpc}") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)
            except grpc.FutureTimeoutError:
                return False
        return True

    def connect(self, place: Place, transport: str) -> _Client:
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each refused query, which we count and show
        return _Client(MilvusClient(f"http://{HOST}:{place.grpc}"))

    def writer(self, place: Place) -> None:
        return None

    def read_mark(self, front: Place, collection: str, vector: list[float]) -> str:
        query = common_pb2.PlaceholderValue(
            tag="$0", type=common_pb2.PlaceholderType.FloatVector, values=[np.asarray(vector, "<f4").tobytes()]
        )
        request = milvus_pb2.SearchRequest(
            collection_name=collection,
            placeholder_group=common_pb2.PlaceholderGroup(placeholders=[query]).SerializeToString(),
            search_params=[common_pb2.KeyValuePair(key="topk", value="1")],
            nq=1,
        )
        with grpc.insecure_channel(f"{HOST}:{front.grpc}") as channel:
            _, call = milvus_pb2_grpc.MilvusServiceStub(channel).Search.with_call(request)
            return str(dict(call.initial_metadata())["x-crossfade"])

    def what_to_try(self, ports: Ports, collection: str, query: Path) -> str:
        return f"""\
python -c '
import json; from pymilvus import DataType, MilvusClient
query = json.load(open("{query}"))["query"]
client = MilvusClient("http://{HOST}:{ports.front_grpc}")
print(client.search("{collection}", [query], limit=3, output_fields=["name"]))'
"""


DATABASE: Database = _Milvus()
