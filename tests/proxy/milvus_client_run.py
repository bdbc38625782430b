"""What users do with pymilvus, as a script: run directly and through Crossfade, by any version of pymilvus.

`python milvus_client_run.py URI UPSTREAM NAME` prints one JSON object: what each step gave, an exception as its text.
UPSTREAM is "lite" or "milvus23", which lacks hybrid search and sparse vectors. It imports nothing of Crossfade, since
it runs in environments that have only pymilvus.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from pymilvus import (
    AnnSearchRequest,
    AsyncMilvusClient,
    Collection,
    CollectionSchema,
    DataType,
    FieldSchema,
    MilvusClient,
    RRFRanker,
    connections,
)

DIM = 16
ROWS = np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32)
Steps = dict[str, Callable[[], Any]]


def plain(value: Any) -> Any:
    """Anything pymilvus gives as JSON; what differs from run to run (timings, ids of its own making) left out."""
    if isinstance(value, dict):
        left = ("cost", "collection_id", "update_timestamp", "created_timestamp", "db_id", "recall", "session_ts")
        return {str(key): plain(one) for key, one in value.items() if key not in left}
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5)
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "__iter__"):
        return [plain(one) for one in value]
    return str(value)


def run(steps: Steps) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, step in steps.items():
        try:
            found[name] = plain(step())
        except Exception as error:  # whatever it is, it must be the same through Crossfade
            found[name] = f"{type(error).__name__}: {getattr(error, 'code', '')} {getattr(error, 'message', error)}"
    return found


def client_steps(client: MilvusClient, name: str, lite: bool) -> Steps:
    def create() -> Any:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        schema.add_field("group", DataType.INT64)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        return client.has_collection(name)

    def rows(start: int, end: int) -> list[dict[str, Any]]:
        return [{"id": i, "vector": ROWS[i].tolist(), "group": i % 5, "title": f"t{i}"} for i in range(start, end)]

    def search(**given: Any) -> Any:
        found = client.search(name, QUERIES.tolist(), limit=5, consistency_level="Strong", **given)
        return [[dict(hit) for hit in hits] for hits in found]

    def bounded(**bounds: float) -> Any:
        return search(search_params={"metric_type": "COSINE", "params": bounds}, anns_field="vector")

    def iterate() -> Any:
        iterator = client.search_iterator(name, QUERIES[:1].tolist(), batch_size=20, limit=70, output_fields=["group"])
        pages = []
        while page := iterator.next():
            pages.append([dict(hit) for hit in page])
        iterator.close()
        return pages

    def query_iterate() -> Any:
        iterator = client.query_iterator(name, batch_size=100, output_fields=["group"], filter="id < 250")
        pages = []
        while page := iterator.next():
            pages.append(page)
        iterator.close()
        return pages

    def aliases() -> Any:
        client.create_alias(name, f"{name}_alias")
        found = client.search(f"{name}_alias", QUERIES[:1].tolist(), limit=2)
        client.drop_alias(f"{name}_alias")
        return [[dict(hit) for hit in hits] for hits in found]

    steps: Steps = {
        "create": create,
        "describe": lambda: {k: v for k, v in client.describe_collection(name).items() if k in ("fields", "aliases")},
        "insert": lambda: client.insert(name, rows(0, 300)),
        "upsert": lambda: client.upsert(name, [{**rows(7, 8)[0], "title": "changed"}]),
        "flush": lambda: client.flush(name) if hasattr(client, "flush") else None,
        "search": search,
        "search named": lambda: search(anns_field="vector", search_params={"metric_type": "COSINE"}),
        "search filtered": lambda: search(filter="group == 3", output_fields=["title", "group"]),
        "search arrays": lambda: [
            [dict(hit) for hit in hits] for hits in client.search(name, list(QUERIES), limit=3, output_fields=["group"])
        ],
        "search range": lambda: bounded(radius=0.1, range_filter=0.6),
        "search grouped": lambda: search(group_by_field="group", output_fields=["group"]),
        "search vectors": lambda: search(output_fields=["vector"]),
        "search offset": lambda: search(search_params={"metric_type": "COSINE", "offset": 3}),
        "search iterator": iterate,
        "query": lambda: client.query(name, filter="id in [1, 7, 299]", output_fields=["*"]),
        "query count": lambda: client.query(name, filter="", output_fields=["count(*)"]),
        "query iterator": query_iterate,
        "get": lambda: client.get(name, ids=[3, 4], output_fields=["vector", "title"]),
        "delete": lambda: client.delete(name, ids=[3, 4]),
        "get deleted": lambda: client.get(name, ids=[3, 4]),
        "delete by filter": lambda: client.delete(name, filter="group == 1"),
        "search after": search,
        "aliases": aliases,
        "wrong dimension": lambda: client.search(name, [[1.0, 2.0]], limit=1),
        "unknown field": lambda: search(anns_field="absent"),
        "unknown collection": lambda: client.search("absent", QUERIES.tolist(), limit=1),
        "collections": lambda: name in client.list_collections(),
        "databases": lambda: client.list_databases(),
    }
    if lite:
        steps |= hybrid_steps(client, f"{name}_hybrid")
    return steps


def hybrid_steps(client: MilvusClient, name: str) -> Steps:
    def create() -> Any:
        schema = client.create_schema(auto_id=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("one", DataType.FLOAT_VECTOR, dim=DIM)
        schema.add_field("two", DataType.FLOAT_VECTOR, dim=DIM)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        index = client.prepare_index_params()
        index.add_index("one", index_type="FLAT", metric_type="COSINE")
        index.add_index("two", index_type="FLAT", metric_type="L2")
        index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        client.create_collection(name, schema=schema, index_params=index)
        rows = [{"one": v.tolist(), "two": v[::-1].tolist(), "sparse": {i: 1.0, 7: 0.5}} for i, v in enumerate(ROWS)]
        return client.insert(name, rows)["insert_count"]

    def ask(field: str) -> AnnSearchRequest:
        data: Any = [{7: 1.0}] if field == "sparse" else QUERIES[:1].tolist()
        return AnnSearchRequest(data, field, {"params": {}}, limit=20)

    def hybrid(*fields: str) -> Any:
        found = client.hybrid_search(name, [ask(one) for one in fields], RRFRanker(), limit=5)
        return [[round(hit["distance"], 5) for hit in hits] for hits in found]

    return {
        "hybrid create": create,
        "hybrid search": lambda: hybrid("one", "two"),
        "hybrid sparse": lambda: hybrid("one", "sparse"),
        "field not named": lambda: [
            [round(hit["distance"], 5) for hit in hits] for hits in client.search(name, QUERIES.tolist(), limit=1)
        ],
        "hybrid drop": lambda: client.drop_collection(name),
    }


def orm_steps(uri: str, name: str) -> Steps:
    connections.connect("orm", uri=uri)
    fields = [
        FieldSchema("pk", DataType.VARCHAR, is_primary=True, max_length=20),
        FieldSchema("emb", DataType.FLOAT_VECTOR, dim=DIM),
    ]
    kept: dict[str, Collection] = {}

    def create() -> Any:
        collection = Collection(name, CollectionSchema(fields), using="orm", consistency_level="Strong")
        collection.insert([[str(i) for i in range(50)], ROWS[:50].tolist()])
        collection.create_index("emb", {"index_type": "FLAT", "metric_type": "L2", "params": {}})
        collection.load()
        kept["it"] = collection
        return collection.schema.to_dict()["fields"]

    def search() -> Any:
        found = kept["it"].search(
            QUERIES.tolist(), "emb", {"metric_type": "L2", "params": {"nprobe": 8}}, limit=4, output_fields=["emb"]
        )
        return [[(hit.id, hit.distance, hit.entity.get("emb")) for hit in hits] for hits in found]

    return {
        "orm create": create,
        "orm search": search,
        "orm query": lambda: kept["it"].query("pk in ['3', '4']", output_fields=["emb"]),
        "orm drop": lambda: kept["it"].drop(),
    }


async def async_run(uri: str, name: str) -> Any:
    client = AsyncMilvusClient(uri=uri)
    found = await asyncio.gather(*(client.search(name, [query.tolist()], limit=4) for query in QUERIES))
    await client.close()
    return [[[dict(hit) for hit in hits] for hits in one] for one in found]


def main() -> None:
    """Run every step and print what they gave."""
    warnings.simplefilter("ignore")
    uri, upstream, name = sys.argv[1:4]
    client = MilvusClient(uri=uri)
    found = run(client_steps(client, name, upstream == "lite"))
    found |= run({"async search": lambda: asyncio.run(async_run(uri, name))})
    found |= run(orm_steps(uri, f"{name}_orm"))
    found |= run({"drop": lambda: client.drop_collection(name), "gone": lambda: client.has_collection(name)})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
