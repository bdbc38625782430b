"""Every gRPC operation of Milvus through a running Crossfade: vectors become the adapter's output, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from crossfade.adapters.base import Adapter, Map
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.forms import read_form
from tests.backends.milvus_messages import ANSWERS, REQUESTS, WRITES, Builder, same_params
from tests.proxy.milvus_serving import SERVICE, MilvusServing, start_milvus_serving
from tests.proxy.recording import GrpcCall, Recorders
from tests.proxy.toy_adapters import NEW, OLD, save_toy

ROUNDS = 25
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}, wide: {dim: 32}}
collections:
  docs é: &docs {index_model: old, query_model: old, adapters: {new: adapters/new}}
  tenant/docs é: *docs
  docs: *docs
detect:
  clients: {user_agents: {"newbot": new, "newbot-old": old}, request_ids: {"new:": new}}
"""
DECLARED = (("x-embedding-model", "new"), ("x-extra-bin", b"\x00\xff"), ("x-twice", "b"), ("x-twice", "a"))
TOLERANCE = {"float": 1e-6, "float16": 1e-3, "bfloat16": 8e-3, "int8": 0.0}
ROWS = np.random.default_rng(5).normal(size=(2, NEW)).astype(np.float32)


@pytest.fixture(scope="module")
def milvus_adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return save_toy(tmp_path_factory.getbasetemp() / "milvus-adapted" / "adapters" / "new")


@pytest.fixture(scope="module")
def milvus(
    recorders: Recorders, milvus_adapter: Adapter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MilvusServing]:
    directory = tmp_path_factory.getbasetemp() / "milvus-adapted"
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_milvus_serving(directory, upstream, SETTINGS) as serving:
        yield serving


@pytest.fixture(scope="module")
def channel(milvus: MilvusServing) -> Iterator[grpc.Channel]:
    with milvus.open_channel() as channel:
        yield channel


def call(
    channel: grpc.Channel, name: str, body: bytes, metadata: tuple[tuple[str, Any], ...] = DECLARED
) -> tuple[bytes, dict[str, Any]]:
    method: Any = channel.unary_unary(f"{SERVICE}/{name}", lambda data: data, lambda data: data)
    answer, call = method.with_call(body, metadata=metadata, timeout=10)
    return answer, dict(call.initial_metadata())


def columns_of(message: Any) -> list[Any]:
    """Every FieldData of a message."""
    found = [*getattr(message, "fields_data", ())]
    results = getattr(message, "results", None)
    if isinstance(results, schema_pb2.SearchResultData):
        found += [*results.fields_data, *results.group_by_field_values]
        found += [results.group_by_field_value] if results.HasField("group_by_field_value") else []
    return found


def searches_of(message: Any) -> list[Any]:
    return [message, *getattr(message, "sub_reqs", ()), *getattr(message, "requests", ())]


def level_vectors(found: Any, expected: Any) -> None:
    """Hold dense vectors to each other within their form's precision, and make them equal, so that the rest can be."""
    for ours, theirs in zip(columns_of(found), columns_of(expected), strict=True):
        kind = theirs.vectors.WhichOneof("data")
        assert ours.vectors.WhichOneof("data") == kind, theirs.field_name
        if kind == "float_vector":
            wanted = np.array(theirs.vectors.float_vector.data)
            np.testing.assert_allclose(np.array(ours.vectors.float_vector.data), wanted, rtol=1e-6, atol=1e-6)
            ours.vectors.float_vector.CopyFrom(theirs.vectors.float_vector)
        elif kind in ("float16_vector", "bfloat16_vector", "int8_vector"):
            form = kind.removesuffix("_vector")
            close(form, getattr(ours.vectors, kind), getattr(theirs.vectors, kind))
            setattr(ours.vectors, kind, getattr(theirs.vectors, kind))
    for ours, theirs in zip(searches_of(found), searches_of(expected), strict=True):
        if getattr(theirs, "placeholder_group", b""):
            got, want = (common_pb2.PlaceholderGroup.FromString(one.placeholder_group) for one in (ours, theirs))
            for mine, other in zip(got.placeholders, want.placeholders, strict=True):
                form = {101: "float", 102: "float16", 103: "bfloat16", 105: "int8"}.get(other.type)
                if form is not None:
                    for value, wanted in zip(mine.values, other.values, strict=True):
                        close(form, value, wanted)
                    del mine.values[:]
                    mine.values.extend(other.values)
            assert got == want
            ours.placeholder_group = theirs.placeholder_group


def close(form: str, found: bytes, expected: bytes) -> None:
    wanted = read_form(form, expected)
    off = 1.0 if form == "int8" else 0.0  # a number in the middle between two may be rounded either way
    np.testing.assert_allclose(read_form(form, found), wanted, rtol=TOLERANCE[form], atol=max(TOLERANCE[form], off))


def adapt(built: Builder, adapter: Adapter, through: Map) -> None:
    assert adapter.calibration is not None
    for place in built.places:
        if place.shape is None:
            place.replace(adapter.calibration.apply(place.key[3]))
        else:
            rows = np.array(place.key[3][0], np.float32).reshape(place.shape)
            place.replace(through.apply(rows) if len(rows) else np.empty((0, through.target_dim), np.float32))


@pytest.mark.parametrize("name", REQUESTS)
def test_vectors_of_a_request_reach_milvus_mapped_and_all_else_as_it_was(
    name: str, channel: grpc.Channel, recorded: Recorders, milvus_adapter: Adapter
) -> None:
    recorded.grpc.answer = answer_describe
    through = milvus_adapter.document if name in WRITES else milvus_adapter.query
    places = 0
    for seed in range(ROUNDS):
        built = Builder(random.Random(seed), dims=(NEW,))
        sent = built.request(name)
        body = sent.SerializeToString()
        _, metadata = call(channel, name, body)
        received = recorded.grpc.last
        assert received.method == f"{SERVICE}/{name}"
        adapt(built, milvus_adapter, through)
        found = type(sent).FromString(received.body)
        level_vectors(found, sent)
        same_params(found)
        same_params(sent)
        assert found == sent
        assert received.values("x-twice") == ["b", "a"]
        assert received.values("x-extra-bin") == [b"\x00\xff"]
        if not built.places:
            assert received.body == body
        vectors = any(place.shape for place in built.places)
        assert metadata.get("x-crossfade", "").startswith("adapted; model=new" if vectors else "")
        places += len(built.places)
    assert (places > 0) == (name != "Query")


def answer_describe(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
    """What Milvus says of a collection with one dense field."""
    if not call.method.endswith("/DescribeCollection"):
        return b""
    asked = milvus_pb2.DescribeCollectionRequest.FromString(call.body)
    answer = milvus_pb2.DescribeCollectionResponse(collection_name=asked.collection_name)
    answer.schema.fields.add(name="id", data_type=5, is_primary_key=True)
    dense = answer.schema.fields.add(name="dense", data_type=101)
    dense.type_params.add(key="dim", value=str(OLD))
    other = answer.schema.fields.add(name="bits", data_type=100)
    other.type_params.add(key="dim", value=str(OLD))
    return bytes(answer.SerializeToString())


@pytest.mark.parametrize("name", ANSWERS)
def test_vectors_of_an_answer_come_back_in_the_space_of_the_client_and_all_else_as_it_was(
    name: str, channel: grpc.Channel, recorded: Recorders, milvus_adapter: Adapter
) -> None:
    assert milvus_adapter.reverse is not None
    places = 0
    for seed in range(ROUNDS):
        built = Builder(random.Random(seed), dims=(OLD,))
        answer = built.answer(name)
        body = answer.SerializeToString()
        recorded.grpc.answer = lambda call, context, body=body: body  # type: ignore[misc]  # the default binds it now
        asked = REQUESTS[name][0](collection_name="docs", output_fields=["*"])
        found, metadata = call(channel, name, asked.SerializeToString())
        adapt(built, milvus_adapter, milvus_adapter.reverse)
        got = type(answer).FromString(found)
        level_vectors(got, answer)
        assert got == answer
        assert ("results=new" in metadata.get("x-crossfade", "")) == bool(built.places)
        places += len(built.places)
    assert places > ROUNDS // 2


@pytest.mark.parametrize("name", [operation.name for operation in MilvusDialect.operations[:5]])
def test_collections_that_are_not_configured_pass_byte_for_byte(
    name: str, channel: grpc.Channel, recorded: Recorders
) -> None:
    for seed in range(ROUNDS):
        body = Builder(random.Random(seed), collection="others").request(name).SerializeToString()
        call(channel, name, body)
        assert recorded.grpc.last.body == body
    assert len(recorded.grpc.calls) == ROUNDS


def search(dim: int, **params: Any) -> bytes:
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=101, values=[np.ones(dim, "<f4").tobytes()])
    request = milvus_pb2.SearchRequest(collection_name="docs", placeholder_group=group.SerializeToString())
    request.search_params.add(key="anns_field", value="dense")
    request.search_params.add(key="params", value=json.dumps(params))
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    ("metadata", "params"),
    [
        ((("x-embedding-model", "new"),), {}),
        ((), {"embedding_model": "new"}),
        ((("client-request-id", "new:42"),), {}),
    ],
)
def test_a_model_is_declared_by_metadata_search_parameter_or_request_id(
    channel: grpc.Channel, recorded: Recorders, metadata: tuple[tuple[str, str], ...], params: dict[str, str]
) -> None:
    _, headers = call(channel, "Search", search(NEW, **params), metadata)
    assert headers["x-crossfade"] == "adapted; model=new; index=old"


def test_a_model_is_declared_by_how_the_user_agent_begins_and_the_longest_counts(
    milvus: MilvusServing, recorded: Recorders
) -> None:
    for agent, model in (("newbot/1", "new"), ("newbot-old/1", "old")):
        options = [("grpc.primary_user_agent", agent), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{milvus.grpc_port}", options=options) as own:
            asked = milvus_pb2.DescribeCollectionRequest(collection_name="docs").SerializeToString()
            recorded.grpc.answer = answer_describe
            told = milvus_pb2.DescribeCollectionResponse.FromString(call(own, "DescribeCollection", asked, ())[0])
            assert told.schema.fields[1].type_params[0].value == str({"new": NEW, "old": OLD}[model])


def test_a_port_stands_for_a_model_and_clients_cannot_say_so_themselves(
    milvus: MilvusServing, channel: grpc.Channel, recorded: Recorders
) -> None:
    with milvus.open_channel(milvus.model_port) as own:
        assert call(own, "Search", search(NEW), ())[1]["x-crossfade"] == "adapted; model=new; index=old"
        answer = call(own, "Search", search(OLD), ())[0]
    reason = milvus_pb2.SearchResults.FromString(answer).status.reason
    assert "16 dimensions" in reason
    assert "declared as 'new'" in reason
    assert recorded.grpc.last.values("x-crossfade-port-model") == []
    _, headers = call(channel, "Search", search(OLD), (("x-crossfade-port-model", "new"),))
    assert headers["x-crossfade"] == "native; model=old; index=old"


def test_each_client_is_told_the_dimension_of_its_own_model(channel: grpc.Channel, recorded: Recorders) -> None:
    recorded.grpc.answer = answer_describe
    asked = milvus_pb2.DescribeCollectionRequest(collection_name="docs").SerializeToString()
    for metadata, dim in (((("x-embedding-model", "new"),), NEW), ((), OLD)):
        told = milvus_pb2.DescribeCollectionResponse.FromString(call(channel, "DescribeCollection", asked, metadata)[0])
        plain = milvus_pb2.DescribeCollectionResponse.FromString(answer_describe(recorded.grpc.last, None))  # type: ignore[arg-type]  # it takes none
        assert told.schema.fields[1].type_params[0].value == str(dim)
        told.schema.fields[1].type_params[0].value = str(OLD)
        assert told == plain


def test_a_search_that_names_no_field_is_of_the_only_dense_one_and_asks_for_the_schema_once(
    channel: grpc.Channel, recorded: Recorders
) -> None:
    recorded.grpc.answer = answer_describe
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=101, values=[ROWS[0].tobytes()])
    request = milvus_pb2.SearchRequest(collection_name="docs", placeholder_group=group.SerializeToString())
    for _ in range(4):
        assert "adapted" in call(channel, "Search", request.SerializeToString())[1]["x-crossfade"]
    methods = [one.method.rpartition("/")[2] for one in recorded.grpc.calls]
    assert methods.count("Search") == 4
    assert methods.count("DescribeCollection") <= 1
