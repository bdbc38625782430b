"""Milvus requests that are led to another collection, and answers that say that they failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import MalformedError, Operation, RequestContext
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.reading import MilvusReading
from crossfade.backends.milvus.schema import SERVICE

DIALECT, READING = MilvusDialect(), MilvusReading()
METHODS = {one.name: one.input_type for one in milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods}
FIELDS = ("collection_name", "collection_names", "collectionName", "target_collection_name", "oldName")
UNKNOWN = b"\xf8\x7d\x96\x01"


def operation_of(transport: Any, path: str, method: str = "POST") -> Operation:
    found = DIALECT.find_operation(transport, method, path) or READING.find_other(transport, method, path)
    assert found is not None, path
    return found


def known(name: str) -> bool:
    path = f"{SERVICE}/{name}"
    return (DIALECT.find_operation("grpc", "POST", path) or READING.find_other("grpc", "POST", path)) is not None


@pytest.mark.parametrize("name", [name for name in METHODS if known(name)])
@pytest.mark.parametrize(("database", "old", "new"), [("", "docs", "new"), ("lib", "lib/docs", "lib/new")])
def test_every_known_method_names_the_other_collection(name: str, database: str, old: str, new: str) -> None:
    message = getattr(milvus_pb2, METHODS[name].name)()
    fields = [field for field in METHODS[name].fields if field.name in FIELDS]
    for field in fields:
        if field.is_repeated:
            getattr(message, field.name).extend(["docs", "else"])
        else:
            setattr(message, field.name, "docs")
    for field in METHODS[name].fields:
        if database and field.name in ("db_name", "target_db_name"):
            setattr(message, field.name, database)
    if database and not any("db_name" in field.name for field in METHODS[name].fields):
        return  # then the metadata name it, which the default database shows below
    body = message.SerializeToString() + UNKNOWN
    operation = operation_of("grpc", f"{SERVICE}/{name}")
    for field in fields:
        if field.is_repeated:
            getattr(message, field.name)[0] = "new"
        else:
            setattr(message, field.name, "new")
    if name == "RestoreSnapshot":
        message.collection_name = "docs"  # what the snapshot was taken of, not what it is restored to
    path, moved = READING.retarget(operation, "/p", body, {old: new})
    assert path == "/p"
    assert type(message).FromString(moved) == type(message).FromString(message.SerializeToString() + UNKNOWN)
    assert READING.retarget(operation, "/p", body, {"x": "y"})[1] == body


def test_searches_inside_a_hybrid_search_name_the_other_collection_too() -> None:
    inner = [milvus_pb2.SearchRequest(collection_name="docs", dsl="a"), milvus_pb2.SearchRequest(collection_name="x")]
    message = milvus_pb2.HybridSearchRequest(collection_name="docs", requests=inner)
    operation = operation_of("grpc", f"{SERVICE}/HybridSearch")
    moved = READING.retarget(operation, "", message.SerializeToString(), {"docs": "new"})[1]
    message.collection_name = message.requests[0].collection_name = "new"
    assert milvus_pb2.HybridSearchRequest.FromString(moved) == message


def test_the_metadata_name_the_database_where_the_message_does_not() -> None:
    body = milvus_pb2.QueryRequest(collection_name="docs").SerializeToString()
    operation, context = operation_of("grpc", f"{SERVICE}/Query"), RequestContext({"dbname": "lib"})
    assert READING.retarget(operation, "", body, {"docs": "new"}, context)[1] == body
    moved = READING.retarget(operation, "", body, {"lib/docs": "lib/new"}, context)[1]
    assert milvus_pb2.QueryRequest.FromString(moved).collection_name == "new"


@pytest.mark.parametrize("path", ["/v2/vectordb/entities/search", "/v2/vectordb/collections/get_stats"])
def test_a_rest_body_names_the_other_collection_and_keeps_every_byte_else(path: str) -> None:
    body = b'{ "collectionName":"docs", "data": [[1.10, 2e0]], "filter": "a == \\"docs\\"" }'
    operation = operation_of("rest", path)
    assert READING.retarget(operation, path, body, {"docs": "new"}) == (path, body.replace(b'"docs",', b'"new",'))
    assert READING.retarget(operation, path, body, {"x": "y"}) == (path, body)
    inside = json.dumps({"collectionName": "docs", "dbName": "lib"}).encode()
    assert READING.retarget(operation, path, inside, {"docs": "new"})[1] == inside
    assert json.loads(READING.retarget(operation, path, inside, {"lib/docs": "lib/new"})[1])["collectionName"] == "new"


def test_the_collection_of_a_request_without_vectors_is_found() -> None:
    stats = milvus_pb2.GetCollectionStatisticsRequest(db_name="lib", collection_name="docs").SerializeToString()
    operation = operation_of("grpc", f"{SERVICE}/GetCollectionStatistics")
    assert READING.find_collection(operation, "", stats) == "lib/docs"
    flush = milvus_pb2.FlushRequest(collection_names=["a", "b"]).SerializeToString()
    assert READING.find_collection(operation_of("grpc", f"{SERVICE}/Flush"), "", flush) is None
    with pytest.raises(MalformedError):
        READING.find_collection(operation, "", b"\x1a\xff")


def test_an_answer_says_itself_that_it_failed() -> None:
    search = operation_of("grpc", f"{SERVICE}/Search")
    for status, failed in (
        (common_pb2.Status(), False),
        (common_pb2.Status(code=100, reason="no such collection"), True),
        (common_pb2.Status(error_code=1), True),
    ):
        body = milvus_pb2.SearchResults(status=status).SerializeToString()
        assert READING.refuses(search, body) == failed
    assert READING.refuses(search, b"\x0a\xff")
    rest = operation_of("rest", "/v2/vectordb/entities/search")
    assert not READING.refuses(rest, b'{"code": 0, "data": []}')
    assert not READING.refuses(rest, b'{"code": 200, "data": []}')
    assert READING.refuses(rest, b'{"code": 100, "message": "no such collection"}')
