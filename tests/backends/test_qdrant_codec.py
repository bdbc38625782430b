"""What the Qdrant dialect says of paths and failures, and how it refuses edits that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import qdrant_client.grpc as grpc
from qdrant_client.http.exceptions import UnexpectedResponse

from crossfade.backends.dialect import Dialect, Failure, MalformedError, TextSlot, Transport, VectorSlot
from crossfade.backends.qdrant import QdrantDialect
from crossfade.backends.qdrant.search import MAX_DEPTH

DIALECT = QdrantDialect()


def test_it_is_a_dialect() -> None:
    dialect: Dialect = DIALECT
    assert dialect.kind == "qdrant"
    assert len({(one.transport, one.method, one.path) for one in dialect.operations}) == len(dialect.operations)


@pytest.mark.parametrize(
    ("transport", "method", "path"),
    [
        ("grpc", "POST", "/qdrant.Points/Delete"),
        ("grpc", "POST", "/qdrant.Collections/Get"),
        ("grpc", "POST", "/collections/docs/points/search"),
        ("rest", "GET", "/collections/docs/points"),
        ("rest", "GET", "/collections/docs/points/search/x"),
        ("rest", "DELETE", "/collections/docs/points/7"),
        ("rest", "POST", "/collections/docs/points/delete"),
        ("rest", "POST", "/collections/docs/points/search/"),
        ("rest", "POST", "/collections//points/search"),
        ("rest", "POST", "/collections/docs/snapshots/upload"),
        ("rest", "PUT", "/collections/docs"),
    ],
)
def test_methods_without_vectors_are_no_operations(transport: Transport, method: str, path: str) -> None:
    assert DIALECT.find_operation(transport, method, path) is None


@pytest.mark.parametrize("name", ["docs", "a%2Fb", "%C3%A9", "a+b"])
def test_a_collection_is_percent_decoded_once(name: str) -> None:
    path = f"/collections/{name}/points/scroll"
    operation = DIALECT.find_operation("rest", "POST", path + "?timeout=3")
    assert operation is not None
    decoded = {"docs": "docs", "a%2Fb": "a/b", "%C3%A9": "é", "a+b": "a+b"}[name]
    assert list(DIALECT.read_request(operation, path, b"{}").collections) == [decoded]


def test_a_rest_failure_is_what_the_client_library_reads() -> None:
    answer = DIALECT.fail(None, "rest", Failure(3, 400, 'no model "é" here'))
    assert (answer.http_status, answer.content_type) == (400, "application/json")
    body = json.loads(answer.body)
    assert body["status"] == {"error": 'no model "é" here'}
    assert isinstance(body["time"], float)
    seen = UnexpectedResponse(answer.http_status, "Bad Request", answer.body, None)  # type: ignore[arg-type]  # headers
    assert seen.structured() == body


def test_a_grpc_failure_is_trailers_only() -> None:
    answer = DIALECT.fail(None, "grpc", Failure(14, 503, "upstream down"))
    assert (answer.grpc_code, answer.message, answer.body) == (14, "upstream down", b"")
    assert (answer.http_status, answer.content_type) == (200, "application/grpc")


def read_search(body: bytes) -> VectorSlot:
    operation = DIALECT.find_operation("grpc", "POST", "/qdrant.Points/Search")
    assert operation is not None
    (slot,) = DIALECT.read_request(operation, operation.path, body).slots
    assert isinstance(slot, VectorSlot)
    return slot


def test_an_edit_with_other_rows_than_the_slot_is_refused() -> None:
    body = grpc.SearchPoints(collection_name="docs", vector=[1, 2, 3], vector_name="text").SerializeToString()
    slot = read_search(body)
    operation = DIALECT.find_operation("grpc", "POST", "/qdrant.Points/Search")
    assert operation is not None
    message = DIALECT.read_request(operation, operation.path, body)
    for rows in (np.zeros((2, 3), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(ValueError, match=r"collection 'docs', field 'text': the slot holds 1 rows, the edit has"):
            message.edited([(slot, rows)])


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_prefetches_without_end_are_refused(transport: Transport) -> None:
    def read(depth: int) -> None:
        if transport == "grpc":
            query = grpc.PrefetchQuery()
            for _ in range(depth - 1):
                query = grpc.PrefetchQuery(prefetch=[query])
            body, path = grpc.QueryPoints(prefetch=[query]).SerializeToString(), "/qdrant.Points/Query"
        else:
            body, path = b'{"prefetch":' * depth + b"{}" + b"}" * depth, "/collections/docs/points/query"
        operation = DIALECT.find_operation(transport, "POST", path)
        assert operation is not None
        DIALECT.read_request(operation, path, body)

    read(MAX_DEPTH)
    with pytest.raises(MalformedError, match=rf"nested more than {MAX_DEPTH} deep"):
        read(MAX_DEPTH + 1)


def test_a_text_takes_its_whole_oneof_with_it() -> None:
    """A dense vector that a later document put out of force must not come back as a part of the new one."""
    old = grpc.VectorInput(dense=grpc.DenseVector(data=[9, 9])).SerializeToString()
    new = grpc.VectorInput(document=grpc.Document(text="t", model="m")).SerializeToString()
    nearest = old + new
    query = b"\x0a" + bytes([len(nearest)]) + nearest
    body = b"\x0a\x04docs" + b"\x1a" + bytes([len(query)]) + query
    operation = DIALECT.find_operation("grpc", "POST", "/qdrant.Points/Query")
    assert operation is not None
    message = DIALECT.read_request(operation, operation.path, body)
    (slot,) = message.slots
    assert isinstance(slot, TextSlot)
    edited = grpc.QueryPoints.FromString(message.edited([(slot, np.array([[1, 2, 3]], np.float32))]))
    assert edited == grpc.QueryPoints(
        collection_name="docs", query=grpc.Query(nearest=grpc.VectorInput(dense=grpc.DenseVector(data=[1, 2, 3])))
    )


def test_a_request_of_another_dialect_is_refused() -> None:
    operation = DIALECT.find_operation("grpc", "POST", "/qdrant.Points/Search")
    assert operation is not None
    with pytest.raises(TypeError, match="Search: the request was read by another dialect"):
        DIALECT.read_answer(operation, object(), b"")  # type: ignore[arg-type]  # on purpose
