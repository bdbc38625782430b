"""Every write of Milvus's API, on both transports: the points it names, and how it is held to those listed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc, schema_pb2

from crossfade.backends.dialect import MalformedError, Operation, RequestContext, Schema
from crossfade.backends.embedded.milvus import MilvusServer
from crossfade.backends.index import PointId
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.expressions import find_points, hold_expression, name_points, read_key
from crossfade.backends.milvus.others import GRPC_OTHERS, READS, REST_OTHERS, WRITES, find_other
from crossfade.backends.milvus.schema import SERVICE
from crossfade.backends.milvus.writing import MilvusWriting
from crossfade.backends.writing import Write

CODEC, DIALECT = MilvusWriting(), MilvusDialect()
NUMBERS: Sequence[PointId] = (7, -3, 2**62)
TEXTS: Sequence[PointId] = ("a", 'it\'s "é"', "7")
SCHEMAS = {
    "numbers": Schema({"v": "float"}, key="pk"),
    "texts": Schema({"v": "float"}, key="pk", text_ids=True),
    "auto": Schema({"v": "float"}, key="pk", makes_ids=True),
    "tenant/numbers": Schema({"v": "float"}, key="other"),
}
CONTEXT = RequestContext(find_schema=SCHEMAS.get)
V2, V1 = "/v2/vectordb/entities", "/v1/vector"


def operation(name: str) -> Operation:
    found = DIALECT.find_operation("grpc", "POST", f"{SERVICE}/{name}") or GRPC_OTHERS[f"{SERVICE}/{name}"]
    return found


def rest_operation(path: str) -> Operation:
    found = DIALECT.find_operation("rest", "POST", path) or find_other("rest", "POST", path)
    assert found is not None
    return found


def read(name: str, message: Any, context: RequestContext = CONTEXT) -> Write:
    write = CODEC.read_write(operation(name), f"{SERVICE}/{name}", message.SerializeToString(), context)
    assert write is not None
    return write


def read_json(path: str, body: Any, context: RequestContext = CONTEXT) -> Write:
    write = CODEC.read_write(rest_operation(path), path, orjson.dumps(body), context)
    assert write is not None
    return write


def rows(name: str, collection: str, ids: Sequence[PointId]) -> Any:
    """An Insert or Upsert with a column of keys among others."""
    request = getattr(milvus_pb2, f"{name}Request")(collection_name=collection, num_rows=len(ids))
    request.fields_data.add(field_name="n", type=5).scalars.long_data.data.extend(range(len(ids)))
    vectors = request.fields_data.add(field_name="v", type=101).vectors
    vectors.dim = 2
    vectors.float_vector.data.extend([0.5] * 2 * len(ids))
    keys = request.fields_data.add(field_name="pk", type=5 if collection != "texts" else 21).scalars
    if collection == "texts":
        keys.string_data.data.extend(map(str, ids))
    else:
        keys.long_data.data.extend(map(int, ids))
    return request


@pytest.mark.parametrize("name", ["Insert", "Upsert"])
@pytest.mark.parametrize(("collection", "ids"), [("numbers", NUMBERS), ("texts", TEXTS)])
def test_rows_name_the_points_of_their_keys(name: str, collection: str, ids: Sequence[PointId]) -> None:
    write = read(name, rows(name, collection, ids))
    assert (write.effect, list(write.collections), write.unsettled) == ("points", [collection], False)
    (step,) = write.steps
    assert (list(step.ids), step.condition, step.creates) == (list(ids), None, False)
    told = [{"pk": one, "v": [1, 2]} for one in ids]
    for path in (f"{V2}/{name.lower()}", f"{V1}/{name.lower()}"):
        (step,) = read_json(path, {"collectionName": collection, "data": told}).steps
        assert list(step.ids) == list(ids)
    (step,) = read_json(f"{V1}/insert", {"collectionName": collection, "data": told[0]}).steps
    assert list(step.ids) == list(ids[:1])


def test_where_milvus_gives_out_keys_its_answer_tells_them_of_an_upsert_too() -> None:
    request = rows("Insert", "auto", ())
    request.fields_data.pop()
    write = read("Insert", request)
    assert (list(write.steps[0].ids), write.steps[0].creates) == ([], True)
    upsert = read("Upsert", rows("Upsert", "auto", NUMBERS)).steps[0]
    assert (list(upsert.ids), upsert.creates) == (list(NUMBERS), True)
    answer = milvus_pb2.MutationResult(IDs=schema_pb2.IDs(int_id=schema_pb2.LongArray(data=[int(n) for n in NUMBERS])))
    assert CODEC.read_created(operation("Insert"), answer.SerializeToString(), write) == list(NUMBERS)
    answer = milvus_pb2.MutationResult(IDs=schema_pb2.IDs(str_id=schema_pb2.StringArray(data=[str(t) for t in TEXTS])))
    assert CODEC.read_created(operation("Insert"), answer.SerializeToString(), write) == list(TEXTS)
    refused = milvus_pb2.MutationResult(status={"code": 1100}).SerializeToString()
    assert CODEC.read_created(operation("Insert"), refused, write) == []


@pytest.mark.parametrize("ids", [[7, -3, 2**62], ["7", "-3", str(2**62)]])
def test_numbers_that_rest_tells_as_strings_are_numbers_where_the_key_is_one(ids: list[Any]) -> None:
    write = read_json(f"{V2}/insert", {"collectionName": "auto", "data": [{"v": [1, 2]}]})
    assert write.steps[0].creates
    answer = orjson.dumps({"code": 0, "data": {"insertCount": 3, "insertIds": ids}})
    assert CODEC.read_created(rest_operation(f"{V2}/insert"), answer, write) == list(NUMBERS)
    assert CODEC.read_created(rest_operation(f"{V2}/insert"), b'{"code": 1100, "message": "no"}', write) == []
    with pytest.raises(MalformedError):
        CODEC.read_created(rest_operation(f"{V2}/insert"), b"{", write)


PLAIN = [
    ("pk in [7, -3, 4611686018427387904]", "numbers", list(NUMBERS)),
    (" pk == 7 ", "numbers", [7]),
    ('pk in [\'a\', "it\'s \\"é\\"", "7"]', "texts", list(TEXTS)),
    ("pk IN []", "numbers", []),
]
CONDITIONS = [
    ("n > 3", "numbers"),
    ("pk in [1, 2] and n > 3", "numbers"),
    ("pk in ['7']", "numbers"),
    ("pk in [7]", "texts"),
    ("not pk in [7]", "numbers"),
    ("PK in [7]", "numbers"),
    ("pk == 1 || n == 2", "numbers"),
    ("pkx in [1]", "numbers"),
    ("pk in (1, 2)", "numbers"),
    ("pk == n", "numbers"),
]


@pytest.mark.parametrize(("expression", "collection", "ids"), PLAIN)
def test_an_expression_that_lists_keys_names_them_without_being_asked(
    expression: str, collection: str, ids: list[PointId]
) -> None:
    request = milvus_pb2.DeleteRequest(collection_name=collection, expr=expression)
    write = read("Delete", request)
    assert ([list(step.ids) for step in write.steps], list(write.conditions)) == ([ids], [])
    for path in (f"{V2}/delete", f"{V1}/delete"):
        (step,) = read_json(path, {"collectionName": collection, "filter": expression}).steps
        assert list(step.ids) == ids


@pytest.mark.parametrize(("expression", "collection"), CONDITIONS)
def test_any_other_expression_is_a_condition_over_grpc_and_may_name_any_point_over_rest(
    expression: str, collection: str
) -> None:
    write = read("Delete", milvus_pb2.DeleteRequest(collection_name=collection, expr=expression))
    assert ([list(step.ids) for step in write.steps], len(write.conditions)) == ([[]], 1)
    told = read_json(f"{V2}/delete", {"collectionName": collection, "filter": expression})
    assert (told.effect, list(told.steps)) == ("anything", [])
    assert "does not list" in told.reason


def test_an_expression_with_parameters_is_a_condition_that_is_asked_for_with_them() -> None:
    request = milvus_pb2.DeleteRequest(
        db_name="tenant", collection_name="numbers", expr="other in {ids}", partition_name="p", namespace="s"
    )
    request.expr_template_values["ids"].array_val.long_data.data.extend([1, 2])
    body = request.SerializeToString()
    (condition,) = read("Delete", request).conditions
    question = CODEC.ask_ids(operation("Delete"), f"{SERVICE}/Delete", body, condition, None, 50)
    assert question.path == f"{SERVICE}/Query"
    asked = milvus_pb2.QueryRequest.FromString(question.body)
    expected = milvus_pb2.QueryRequest(
        db_name="tenant", collection_name="numbers", expr="other in {ids}", partition_names=["p"], namespace="s",
        output_fields=["other"],
    )  # fmt: skip
    expected.expr_template_values["ids"].array_val.long_data.data.extend([1, 2])
    expected.query_params.add(key="limit", value="50")
    assert asked == expected
    del expected.query_params[:]
    whole = CODEC.ask_ids(operation("Delete"), f"{SERVICE}/Delete", body, condition, 9, 50)
    assert milvus_pb2.QueryRequest.FromString(whole.body) == expected
    held = milvus_pb2.DeleteRequest.FromString(CODEC.edit(operation("Delete"), body, [], [(condition, [4, 5])]))
    assert held.expr == "(other in {ids}) and other in [4, 5]"
    held.expr = request.expr
    assert held == request
    told = {"collectionName": "numbers", "filter": "pk in {ids}", "exprParams": {"ids": [1]}}
    assert read_json(f"{V2}/delete", told).effect == "anything"


def test_a_database_in_the_metadata_counts() -> None:
    request = milvus_pb2.DeleteRequest(collection_name="numbers", expr="other in [1]")
    write = read("Delete", request, RequestContext({"dbname": "tenant"}, find_schema=SCHEMAS.get))
    assert (list(write.collections), list(write.steps[0].ids)) == (["tenant/numbers"], [1])


@pytest.mark.parametrize("name", ["Insert", "Upsert", "Delete"])
def test_without_the_schema_the_points_cannot_be_told(name: str) -> None:
    message = getattr(milvus_pb2, f"{name}Request")(collection_name="numbers")
    assert read(name, message, RequestContext()).unsettled
    body = {"collectionName": "numbers", "data": [], "filter": "pk in [1]"}
    assert read_json(f"{V2}/{name.lower()}", body, RequestContext()).unsettled


def test_rows_are_owned_by_their_keys_and_those_without_a_vector_own_none() -> None:
    request = rows("Upsert", "numbers", NUMBERS)
    column = request.fields_data[1]
    column.valid_data.extend([True, False, True])
    del column.vectors.float_vector.data[4:]
    body = request.SerializeToString()
    message = DIALECT.read_request(operation("Upsert"), "", body, CONTEXT)
    assert [len(slot.rows) for slot in message.slots] == [2]  # type: ignore[union-attr]  # vectors
    assert CODEC.find_owners(operation("Upsert"), message) == [[NUMBERS[0], NUMBERS[2]]]
    text = orjson.dumps({"collectionName": "texts", "data": [{"pk": "a", "v": [1, 2]}, {"pk": "b"}, {"v": [3, 4]}]})
    message = DIALECT.read_request(rest_operation(f"{V2}/upsert"), f"{V2}/upsert", text, CONTEXT)
    assert CODEC.find_owners(rest_operation(f"{V2}/upsert"), message) == [("a",), ()]


KEYS = st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.text(st.characters(codec="utf-8")))


@given(KEYS)
def test_listed_keys_are_read_as_they_were_written(ids: list[PointId]) -> None:
    text_ids = bool(ids) and isinstance(ids[0], str)
    assert find_points(name_points("pk", ids), "pk", text_ids=text_ids) == ids
    assert find_points(hold_expression("pk in [1]", "pk", ids), "pk", text_ids=text_ids) is None


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_key_in_json_may_be_a_number_or_its_digits(number: int) -> None:
    assert read_key(number, text_ids=False) == read_key(str(number), text_ids=False) == number
    assert read_key(number, text_ids=True) is None
    assert read_key(True, text_ids=False) is None


EFFECTS = {
    "both": {"CreateIndex", "AlterIndex", "DropIndex"},
    "anything": {
        *("Import", "TruncateCollection", "BatchUpdateManifest", "RefreshExternalCollection", "RestoreSnapshot"),
        "RestoreExternalSnapshot",
    },
}


@pytest.mark.parametrize("name", WRITES)
def test_a_change_means_what_its_kind_says_and_names_its_collection(name: str) -> None:
    if name == "Delete":
        return
    message = getattr(milvus_pb2, f"{name}Request")
    names = {one.name for one in message.DESCRIPTOR.fields}
    field = next(one for one in ("target_collection_name", "collection_name", "oldName", "alias") if one in names)
    database = "target_db_name" if "target_db_name" in names else "db_name"
    write = read(name, message(**{field: "docs é", database: "tenant"}))
    expected = next((effect for effect, listed in EFFECTS.items() if name in listed), "refused")
    assert (write.effect, "tenant/docs é" in write.collections) == (expected, True)
    assert write.reason


def test_every_method_that_names_a_collection_is_known() -> None:
    service = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
    words = ("collection_name", "collection_names", "collectionName", "alias", "oldName", "target_collection_name")
    naming = {one.name for one in service.methods if any(field.name in words for field in one.input_type.fields)}
    vectors = {one.name for one in DIALECT.operations}
    others = {
        "ShowCollections",
        "OperatePrivilegeV2",
        "TransferReplica",
        "ListRestoreSnapshotJobs",
        "ListIndexedSegment",
    }
    others |= {"DescribeSegmentIndexData"}  # rights, replicas and jobs: no collection's content
    assert naming - vectors - others == {*READS, *WRITES}
    assert {one.name for one in REST_OTHERS.values()} <= {*READS, *WRITES}


def test_rest_changes_of_a_collection_name_it_however_they_do() -> None:
    body = orjson.dumps({"collectionName": "a", "newCollectionName": "b", "aliasName": "c", "dbName": "tenant"})
    for path, one in REST_OTHERS.items():
        assert list(CODEC.find_names(one, path, body)) == ["tenant/a", "tenant/b", "tenant/c"]
        assert (CODEC.read_write(one, path, body, CONTEXT) is None) == (one.name in READS)


@pytest.fixture(params=["embedded", "real"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "real":
        yield request.getfixturevalue("real_milvus")
        return
    with MilvusServer(tmp_path / "data") as running:
        yield f"127.0.0.1:{running.port}"


@pytest.mark.parametrize("text_ids", [False, True])
def test_a_milvus_lists_the_points_of_a_condition_and_deletes_only_those_it_was_held_to(
    server: str, text_ids: bool
) -> None:
    client, name = MilvusClient(f"http://{server}"), f"w{uuid.uuid4().hex[:8]}"
    schema = client.create_schema()
    kind = DataType.VARCHAR if text_ids else DataType.INT64
    schema.add_field("pk", kind, is_primary=True, **({"max_length": 30} if text_ids else {}))
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("n", DataType.INT64)
    index = client.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    ids: list[PointId] = [f'it\'s "{at}" é\\' if text_ids else at - 5 for at in range(12)]
    client.insert(name, [{"pk": one, "v": np.ones(2).tolist(), "n": at} for at, one in enumerate(ids)])
    context = RequestContext(find_schema={name: Schema({"v": "float"}, key="pk", text_ids=text_ids)}.get)
    request = milvus_pb2.DeleteRequest(collection_name=name, expr="n > 3 and n < 9")
    body, delete = request.SerializeToString(), operation("Delete")
    (condition,) = read("Delete", request, context).conditions
    channel = client._get_connection()._channel
    stub: Any = milvus_pb2_grpc.MilvusServiceStub(channel)
    for after, limit in ((None, 100), (ids[0], 100)):  # a page, and all
        question = CODEC.ask_ids(delete, delete.path, body, condition, after, limit)
        answer = stub.Query(milvus_pb2.QueryRequest.FromString(question.body)).SerializeToString()
        listed = CODEC.read_ids(delete, answer)
        assert (set(listed.ids), listed.after) == (set(ids[4:9]), None)
    held = CODEC.edit(delete, body, [], [(condition, [ids[5], ids[6], ids[11]])])
    assert stub.Delete(milvus_pb2.DeleteRequest.FromString(held)).status.code == 0
    left = client.query(name, filter="n >= 0", output_fields=["n"], consistency_level="Strong")
    assert {row["n"] for row in left} == set(range(12)) - {5, 6}
    none = CODEC.edit(delete, body, [], [(condition, [])])
    assert stub.Delete(milvus_pb2.DeleteRequest.FromString(none)).status.code == 0
    assert len(client.query(name, filter="n >= 0", output_fields=["n"], consistency_level="Strong")) == 10
    refused = stub.Query(milvus_pb2.QueryRequest(collection_name=name, expr="n >", output_fields=["pk"]))
    with pytest.raises(MalformedError):
        CODEC.read_ids(delete, refused.SerializeToString())
    client.drop_collection(name)
