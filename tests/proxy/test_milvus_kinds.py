"""Half-precision vectors, rows without a vector, and partial upserts, through Crossfade onto servers that store them.

milvus-lite's C++ engine stores and searches float16 and bfloat16; the real Milvus 2.3 stores float16; the embedded
Milvus has nullable vectors and partial upserts. No server that can be installed without containers stores int8: those
are held against a recording upstream (test_milvus_adapted).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from crossfade.adapters.base import Adapter, Float32
from crossfade.backends.milvus.forms import read_form, write_form
from tests.ports import free_ports
from tests.proxy.milvus_serving import MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

TYPES = {"float16": DataType.FLOAT16_VECTOR, "bfloat16": DataType.BFLOAT16_VECTOR, "float": DataType.FLOAT_VECTOR}
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3}  # relative: 11 and 8 bits of precision
NAMES = {form: f"{form}_{uuid.uuid4().hex[:8]}" for form in TYPES}  # of the collections, no other test's
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections:
""" + "".join(
    f"  {name}: {{index_model: old, query_model: new, adapters: {{new: adapters/new}}}}\n" for name in NAMES.values()
)
ROWS = toy_vectors(1, 6, NEW)


@dataclass(frozen=True)
class Example:
    """A collection whose index is of the model `old`, by Crossfade and directly, for clients of the model `new`."""

    name: str
    serving: MilvusServing
    direct: MilvusClient
    adapter: Adapter

    def stored(self, form: str) -> dict[int, Float32]:
        """The vectors that lie in Milvus."""
        rows = self.direct.query(self.name, filter="id >= 0", output_fields=["v"], consistency_level="Strong")
        return {row["id"]: read_row(form, row["v"]) for row in rows}


def read_row(form: str, value: Any) -> Float32:
    data = value[0] if isinstance(value, list) and isinstance(value[0], bytes) else value
    return read_form(form, data) if isinstance(data, bytes) else np.array(data, np.float32)


Serve = Callable[[str], tuple[MilvusServing, Adapter]]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Crossfade in front of the Milvus at an address, and its adapter; started once for each."""
    with ExitStack() as running:

        @cache
        def start(address: str) -> tuple[MilvusServing, Adapter]:
            folder = tmp_path_factory.mktemp("serve")
            adapter = save_toy(folder / "adapters" / "new")
            return running.enter_context(start_milvus_serving(folder, f'grpc: "{address}"', SETTINGS)), adapter

        yield start


@contextmanager
def make(address: str, serve: Serve, form: str, **field: Any) -> Iterator[Example]:
    """An empty collection whose vectors have this form."""
    name, direct = NAMES[form], MilvusClient(f"http://{address}")
    schema = direct.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", TYPES[form], dim=OLD, **field)
    schema.add_field("title", DataType.VARCHAR, max_length=20)
    index = direct.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="L2")
    direct.create_collection(name, schema=schema, index_params=index)
    serving, adapter = serve(address)
    yield Example(name, serving, direct, adapter)
    direct.drop_collection(name)
    direct.close()


@pytest.fixture(params=["cpp float16", "cpp bfloat16", "2.3 float16"])
def half(request: pytest.FixtureRequest, serve: Serve) -> Iterator[tuple[Example, str, bool]]:
    server, form = request.param.split()
    address = request.getfixturevalue("cpp_milvus" if server == "cpp" else "real_milvus")
    with make(address, serve, form) as example:
        yield example, form, server == "cpp"


def columns(name: str, form: str, rows: Float32) -> Any:
    """An insert as any client sends it: ids, vectors in the form of the field, and titles."""
    request = milvus_pb2.InsertRequest(collection_name=name, num_rows=len(rows))
    request.fields_data.add(type=5, field_name="id").scalars.long_data.data.extend(range(len(rows)))
    vectors = request.fields_data.add(type=TYPES[form].value, field_name="v").vectors
    vectors.dim = rows.shape[1]
    setattr(vectors, f"{form}_vector", write_form(form, rows))
    titles = request.fields_data.add(type=21, field_name="title").scalars.string_data.data
    titles.extend(f"t{at}" for at in range(len(rows)))
    return request


def test_half_precision_vectors_are_stored_searched_and_handed_back_mapped(half: tuple[Example, str, bool]) -> None:
    example, form, searches = half
    with example.serving.open_channel() as channel:
        stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)
        answer = stub.Insert(columns(example.name, form, ROWS))
        assert (answer.status.code, answer.insert_cnt) == (0, len(ROWS)), answer.status.reason
        expected = example.adapter.document.apply(read_form(form, write_form(form, ROWS)).reshape(ROWS.shape))
        stored = example.stored(form)
        np.testing.assert_allclose([stored[at] for at in range(len(ROWS))], expected, rtol=TOLERANCE[form], atol=1e-3)
        request = milvus_pb2.QueryRequest(collection_name=example.name, expr="id >= 0", output_fields=["id", "v"])
        request.guarantee_timestamp, request.consistency_level = 0, 0
        told = {one.field_name: one for one in stub.Query(request).fields_data}
        back = read_form(form, getattr(told["v"].vectors, f"{form}_vector")).reshape(-1, NEW)
        assert example.adapter.reverse is not None
        kept = np.array([stored[one] for one in told["id"].scalars.long_data.data])
        np.testing.assert_allclose(back, example.adapter.reverse.apply(kept), rtol=TOLERANCE[form], atol=8e-3)
    if searches:
        client = MilvusClient(example.serving.uri)
        asked = toy_vectors(1, 9, NEW)
        queries = [np.frombuffer(write_form("float16", row), np.float16) for row in asked]
        if form == "bfloat16":
            queries = [write_form("bfloat16", row) for row in asked]  # type: ignore[misc]  # pymilvus takes bytes for it
        found = client.search(example.name, queries, anns_field="v", limit=3, output_fields=["title"])
        mapped = example.adapter.query.apply(read_form(form, write_form(form, asked)).reshape(asked.shape))
        distances = ((mapped[:, None] - np.array([stored[at] for at in range(len(ROWS))])) ** 2).sum(axis=2)
        for at, hits in enumerate(found):
            np.testing.assert_allclose(
                [hit["distance"] for hit in hits], np.sort(distances[at])[:3], rtol=2e-2, atol=1e-3
            )
            best = np.argsort(distances[at])
            gap = distances[at][best[1]] - distances[at][best[0]]
            assert hits[0]["id"] == best[0] or gap < 1e-3 + 2e-2 * distances[at][best[1]]
            assert hits[0]["entity"]["title"] == f"t{hits[0]['id']}"
        client.close()


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded Milvus."""
    (port,) = free_ports(1)
    with start_embedded(tmp_path_factory.mktemp("lite") / "data", port):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def nullable(lite: str, serve: Serve) -> Iterator[Example]:
    with make(lite, serve, "float", nullable=True) as example:
        yield example


def test_rows_without_a_vector_stay_without_and_the_others_keep_theirs(nullable: Example) -> None:
    client = MilvusClient(nullable.serving.uri)
    vectors = [None, ROWS[0], ROWS[1], None, ROWS[2]]
    rows = [
        {"id": at, "v": None if vector is None else vector.tolist(), "title": f"t{at}"}
        for at, vector in enumerate(vectors)
    ]
    client.insert(nullable.name, rows)
    stored = nullable.stored("float")
    expected = nullable.adapter.document.apply(ROWS[:3])
    np.testing.assert_allclose([stored[at] for at in (1, 2, 4)], expected, rtol=0, atol=1e-6)
    assert not np.any([stored[at] for at in (0, 3)])  # this Milvus keeps zeros for none, also when asked directly
    titles = nullable.direct.query(nullable.name, filter="id >= 0", output_fields=["title"])
    assert {row["id"]: row["title"] for row in titles} == {at: f"t{at}" for at in range(5)}
    client.close()


def test_a_partial_upsert_changes_what_it_names_and_maps_the_vectors_among_it(nullable: Example) -> None:
    client = MilvusClient(nullable.serving.uri)
    client.insert(nullable.name, [{"id": at, "v": row.tolist(), "title": f"t{at}"} for at, row in enumerate(ROWS[:3])])
    before = nullable.stored("float")
    client.upsert(nullable.name, [{"id": 0, "title": "other"}], partial_update=True)
    client.upsert(nullable.name, [{"id": 1, "v": ROWS[4].tolist()}], partial_update=True)
    after = nullable.stored("float")
    for at in (0, 2):
        np.testing.assert_array_equal(after[at], before[at])
    np.testing.assert_allclose(after[1], nullable.adapter.document.apply(ROWS[4:5])[0], rtol=0, atol=1e-6)
    rows = nullable.direct.query(nullable.name, filter="id >= 0", output_fields=["title"])
    assert {row["id"]: row["title"] for row in rows} == {0: "other", 1: "t1", 2: "t2"}
    client.close()
