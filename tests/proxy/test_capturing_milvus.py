"""Writes to a Milvus collection under migration, with unmodified pymilvus on an embedded Milvus: what is journalled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from crossfade.backends.index import PointId
from crossfade.proxy.loading import read_config
from crossfade.proxy.migration.presence import presence_of
from crossfade.proxy.migration.record import Spec
from crossfade.proxy.migration.store import Store
from tests.ports import free_ports
from tests.proxy.capture_stage import Stage, run_dir_of, wait_closed
from tests.proxy.milvus_serving import start_embedded, start_milvus_serving
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs: &docs
    {index_model: old, query_model: new, adapters: {new: adapters/new}, text: title, migrate: {to: new, field: vector}}
  tenant/auto: {index_model: old, query_model: new, adapters: {new: adapters/new}, text: title}
state: STATE
"""
SPEC = Spec(
    collection="docs", target="docs__new", from_model="old", to_model="new", field="vector", dim=NEW, text="title"
)
ROWS = toy_vectors(1, 8, NEW).tolist()


def make(direct: MilvusClient, name: str, *, auto_id: bool) -> None:
    schema = direct.create_schema(auto_id=auto_id, enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR if not auto_id else DataType.INT64, is_primary=True, max_length=30)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=OLD)
    schema.add_field("title", DataType.VARCHAR, max_length=30)
    index = direct.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    direct.create_collection(name, schema=schema, index_params=index)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, str]]:
    folder = tmp_path_factory.mktemp("capturing-milvus")
    save_toy(folder / "adapters" / "new")
    (folder / "state" / "migrations").mkdir(parents=True)
    store = Store(f"sqlite:///{folder / 'state' / 'migrations' / 'store.sqlite'}")
    presence = presence_of(store.url)
    assert presence.take()
    (port,) = free_ports(1)
    settings = SETTINGS.replace("STATE", str(folder / "state"))
    with start_embedded(folder / "data", port):
        direct = MilvusClient(f"http://127.0.0.1:{port}")
        make(direct, "docs", auto_id=False)
        direct.create_database("tenant")
        make(MilvusClient(f"http://127.0.0.1:{port}", db_name="tenant"), "auto", auto_id=True)
        with start_milvus_serving(folder, f'grpc: "127.0.0.1:{port}"', settings) as serving:
            config = read_config(serving.config.read_text(), serving.config.parent)
            made = Stage(serving, run_dir_of(serving), config, store)
            made.migrate(SPEC)
            yield made, serving.uri
    presence.leave()
    store.shut()


@pytest.fixture
def client(stage: tuple[Stage, str]) -> Iterator[MilvusClient]:
    stage[0].forget()
    opened = MilvusClient(stage[1])
    yield opened
    opened.close()


def row(key: str, at: int, **more: Any) -> dict[str, Any]:
    return {"pk": key, "vector": ROWS[at], "title": f"t{at}", **more}


def test_rows_and_deletes_are_journalled_by_their_keys(stage: tuple[Stage, str], client: MilvusClient) -> None:
    made = stage[0]
    keys: Sequence[PointId] = ["a", "it's", '"b"']
    client.insert("docs", [row(str(key), at) for at, key in enumerate(keys)])
    wait_closed(made, keys)
    assert {point for point, _, _ in made.natives()} == set(keys)  # vectors of the new model go over as they are
    made.forget()
    client.upsert("docs", [row("a", 4), row("c", 5)])
    wait_closed(made, ["a", "c"])
    made.forget()
    client.upsert("docs", [{"pk": "c", "title": "other"}], partial_update=True)
    wait_closed(made, ["c"])
    made.forget()
    client.delete("docs", ids=["c", "absent"])
    wait_closed(made, ["c", "absent"])
    made.forget()
    client.delete("docs", filter='title in ["t4", "t1"]')
    wait_closed(made, ["a", "it's"])
    left = client.query("docs", filter='title != ""', output_fields=["pk"], consistency_level="Strong")
    assert [one["pk"] for one in left] == ['"b"']


@pytest.mark.parametrize("verb", ["drop", "rename", "alias", "release"])
def test_what_would_part_the_two_collections_is_refused_with_what_to_do(client: MilvusClient, verb: str) -> None:
    asks: dict[str, Callable[[], Any]] = {
        "drop": lambda: client.drop_collection("docs"),
        "rename": lambda: client.rename_collection("docs", "other"),
        "alias": lambda: client.create_alias("docs", "other"),
        "release": lambda: client.release_collection("docs"),
    }
    with pytest.raises(MilvusException, match="complete or cancel the migration first"):
        asks[verb]()
    assert client.has_collection("docs")


def test_a_collection_that_gives_out_keys_is_journalled_by_those_of_the_answer(stage: tuple[Stage, str]) -> None:
    made = stage[0]
    made.migrate(SPEC.model_copy(update={"collection": "tenant/auto", "target": "tenant/auto__new"}))
    made.forget()
    client = MilvusClient(stage[1], db_name="tenant")
    ids = client.insert("auto", [{"vector": ROWS[at], "title": f"t{at}"} for at in range(3)])["ids"]
    wait_closed(made, list(ids))
    made.forget()
    client.delete("auto", filter='title == "t1"')
    wait_closed(made, [ids[1]])
    assert made.marked()[1] == frozenset({ids[1]})
    client.close()
    made.migrate(SPEC)
