"""Milvus's REST bodies, v2 and v1: exchanges written from its documentation, and random rows around them."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.backends.dialect import MalformedError, Message, RequestContext, Role, Schema, ScoreSlot, VectorSlot
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.forms import read_form, write_form

DIALECT = MilvusDialect()
SCHEMA = Schema({"vector": "float", "half": "float16", "brain": "bfloat16", "small": "int8"})
CONTEXT = RequestContext(find_schema={"docs": SCHEMA, "one": Schema({"emb": "float"})}.get)
HALF = np.array([0.5, -1.25, 3.0], np.float32)
HALF_TEXT = b64encode(write_form("float16", HALF)).decode()
V2, V1 = "/v2/vectordb/entities", "/v1/vector"


def read(path: str, body: Any, context: RequestContext = CONTEXT, method: str = "POST") -> Message:
    operation = DIALECT.find_operation("rest", method, path)
    assert operation is not None
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return DIALECT.read_request(operation, path, data, context)


def found(message: Message) -> list[Any]:
    return [
        (slot.field, "score", slot.score)
        if isinstance(slot, ScoreSlot)
        else (slot.field, slot.model, slot.rows.tolist())
        if isinstance(slot, VectorSlot)
        else (slot.field, slot.model, slot.text)
        for slot in message.slots
    ]


ROWS = {
    "collectionName": "docs",
    "data": [
        {"id": 1, "vector": [0.1, 0.2, 0.3], "color": "red", "numbers": [1, 2, 3], "half": HALF_TEXT},
        {"id": 2, "vector": [1, 2.50, 3e0], "small": [1, -2, 3], "brain": None, "sparse": {"1": 0.5}},
    ],
}
SEARCH = {"collectionName": "docs", "data": [[0.1, 0.2, 0.3], [1, 2, 3]], "annsField": "vector", "limit": 3}
REQUESTS: list[tuple[str, Any, list[Any]]] = [
    (
        f"{V2}/insert",
        ROWS,
        [
            ("vector", None, [[0.1, 0.2, 0.3]]),
            ("half", None, [HALF.tolist()]),
            ("vector", None, [[1, 2.5, 3]]),
            ("small", None, [[1, -2, 3]]),
        ],
    ),
    (f"{V2}/upsert", {"collectionName": "docs", "data": {"vector": [1, 2]}}, [("vector", None, [[1, 2]])]),
    (f"{V1}/insert", {"collectionName": "docs", "data": {"vector": [1, 2]}}, [("vector", None, [[1, 2]])]),
    (f"{V2}/search", SEARCH, [("vector", None, [[0.1, 0.2, 0.3]]), ("vector", None, [[1, 2, 3]])]),
    (
        f"{V2}/search",
        {**SEARCH, "searchParams": {"metricType": "COSINE", "params": {"radius": 0.25, "range_filter": 1}}},
        [
            ("vector", None, [[0.1, 0.2, 0.3]]),
            ("vector", None, [[1, 2, 3]]),
            ("vector", "score", 0.25),
            ("vector", "score", 1),
        ],
    ),
    (
        f"{V2}/search",
        {"collectionName": "docs", "data": [HALF_TEXT, "not, base64"], "annsField": "half"},
        [("half", None, [HALF.tolist()]), ("half", "", "not, base64")],
    ),
    (
        f"{V2}/search",
        {"collectionName": "one", "data": ["où est"], "searchParams": {"params": {"embedding_model": "e5"}}},
        [("emb", "e5", "où est")],
    ),
    (f"{V2}/search", {"collectionName": "docs", "data": ["bm25"], "annsField": "sparse"}, []),
    (f"{V2}/search", {"collectionName": "docs", "data": [{"1": 0.5}], "annsField": "vector"}, []),
    (f"{V2}/search", {"collectionName": "docs", "ids": [1, 2], "annsField": "vector"}, []),
    (
        f"{V2}/hybrid_search",
        {
            "collectionName": "docs",
            "search": [
                {"data": [[1, 2]], "annsField": "vector", "params": {"radius": 0.5, "embedding_model": "e5"}},
                {"data": [{"1": 0.5}], "annsField": "sparse"},
                {"data": [[3, 4]], "annsField": "small"},
            ],
            "rerank": {"strategy": "rrf", "params": {"k": 10}},
        },
        [("vector", "e5", [[1, 2]]), ("vector", "score", 0.5), ("small", None, [[3, 4]])],
    ),
    (
        f"{V2}/advanced_search",
        {"collectionName": "docs", "search": [{"data": [[1, 2]], "annsField": "vector"}]},
        [("vector", None, [[1, 2]])],
    ),
    (
        f"{V1}/search",
        {"collectionName": "one", "vector": [1, 2], "params": {"radius": 2}},
        [("emb", None, [[1, 2]]), ("emb", "score", 2)],
    ),
    (f"{V2}/get", {"collectionName": "docs", "id": [1]}, []),
    (f"{V2}/query", {"collectionName": "docs", "filter": "id > 0"}, []),
    (f"{V1}/upsert", {"collectionName": "docs", "data": [{"id": 1, "vector": [1, 2]}]}, [("vector", None, [[1, 2]])]),
    (f"{V1}/get", {"collectionName": "docs", "id": 1, "outputFields": ["vector"]}, []),
    (f"{V1}/query", {"collectionName": "docs", "filter": "id > 0", "outputFields": ["vector"]}, []),
    (
        f"{V2}/insert",
        {"collectionName": "docs", "data": [{"id": 1, "clips": [{"vector": [1, 2], "n": 1}], "vector": [3, 4]}]},
        [("vector", None, [[3, 4]])],  # arrays of structs pass with what is in them
    ),
]


def test_every_rest_method_has_a_documented_exchange() -> None:
    methods = {one.path for one in DIALECT.operations if one.transport == "rest" and not one.describes}
    assert {path for path, _, _ in REQUESTS} == methods


@pytest.mark.parametrize(("path", "body", "slots"), REQUESTS, ids=[path for path, _, _ in REQUESTS])
def test_a_documented_request_gives_its_slots_and_keeps_every_other_byte(path: str, body: Any, slots: Any) -> None:
    text = json.dumps(body, ensure_ascii=False, indent=1).encode()
    message = read(path, text)
    assert not message.unsettled
    assert repr(found(message)) == repr([rounded(slot) for slot in slots])
    role = Role.DOCUMENT if "sert" in path else Role.QUERY
    assert all(slot.role is role for slot in message.slots if isinstance(slot, VectorSlot))
    same = [(slot, slot.rows.copy()) for slot in message.slots if isinstance(slot, VectorSlot)]
    assert message.edited(same) == text


def rounded(slot: Any) -> Any:
    """A slot as float32 has it."""
    if slot[1] == "score":
        return (*slot[:2], float(slot[2]))
    return slot if isinstance(slot[2], str) else (*slot[:2], np.array(slot[2], np.float32).tolist())


@pytest.mark.parametrize(("path", "body", "slots"), REQUESTS, ids=[path for path, _, _ in REQUESTS])
def test_without_a_schema_a_request_is_unsettled_and_gives_no_slot(path: str, body: Any, slots: Any) -> None:
    message = read(path, body, RequestContext())
    assert message.unsettled
    assert list(message.slots) == []


def test_rows_go_back_in_the_form_in_which_they_came() -> None:
    message = read(f"{V2}/insert", ROWS)
    edits = [(slot, np.full((1, 2), 2.6, np.float32)) for slot in message.slots if isinstance(slot, VectorSlot)]
    edited = json.loads(message.edited(edits))
    assert edited["data"][0]["vector"] == [2.6, 2.6]
    assert edited["data"][1]["small"] == [3, 3]
    expected = json.loads(json.dumps(ROWS))
    expected["data"][0] |= {"vector": [2.6, 2.6], "half": b64encode(np.full(2, 2.6, "<f2").tobytes()).decode()}
    expected["data"][1] |= {"vector": [2.6, 2.6], "small": [3, 3]}
    assert edited == expected


def test_a_text_is_replaced_by_the_vector_it_was_encoded_to() -> None:
    message = read(f"{V2}/search", {"collectionName": "one", "data": ["a", "b"]})
    edited = json.loads(message.edited([(slot, np.ones((1, 2), np.float32)) for slot in message.slots]))  # type: ignore[misc]  # texts only
    assert edited["data"] == [[1.0, 1.0], [1.0, 1.0]]


ANSWER = {
    "code": 0,
    "cost": 0,
    "data": [
        {"id": 1, "distance": 0.9, "vector": [0.1, 0.2], "numbers": [1, 2], "half": HALF_TEXT},
        {"id": "2", "distance": 0.5, "vector": [3, 4], "small": [1, 2]},
    ],
}


def test_the_vectors_of_an_answer_are_its_dense_fields() -> None:
    body = json.dumps(ANSWER).encode()
    for path, asked in ((f"{V2}/search", {**SEARCH, "outputFields": ["*"]}), (f"{V2}/get", {"collectionName": "docs"})):
        request = read(path, asked)
        assert request.wants_vectors
        operation = DIALECT.find_operation("rest", "POST", path)
        assert operation is not None
        answer = DIALECT.read_answer(operation, request, body)
        assert [slot[0] for slot in found(answer)] == ["vector", "half", "vector", "small"]
        assert all(isinstance(slot, VectorSlot) and slot.role is Role.RESULT for slot in answer.slots)
    assert not read(f"{V2}/search", SEARCH).wants_vectors


def test_a_refusal_has_no_slots() -> None:
    operation = DIALECT.find_operation("rest", "POST", f"{V2}/get")
    assert operation is not None
    request = read(f"{V2}/get", {"collectionName": "docs"})
    assert list(DIALECT.read_answer(operation, request, b'{"code":1100,"message":"no"}').slots) == []


def test_the_database_stands_before_the_collection_where_it_is_not_the_default() -> None:
    assert read(f"{V2}/get", {"collectionName": "docs", "dbName": "tenant"}).collections == ("tenant/docs",)
    assert read(f"{V2}/get", {"collectionName": "docs", "dbName": "default"}).collections == ("docs",)


DESCRIBED = {
    "/v2/vectordb/collections/describe": {
        "code": 0,
        "data": {
            "collectionName": "docs",
            "fields": [
                {"name": "id", "type": "Int64"},
                {"name": "vector", "type": "FloatVector", "params": [{"key": "dim", "value": "16"}]},
                {"name": "half", "type": "Float16Vector", "params": [{"key": "dim", "value": 16}]},
                {"name": "bits", "type": "BinaryVector", "params": [{"key": "dim", "value": "16"}]},
            ],
        },
    },
    "/v1/vector/collections/describe": {
        "code": 200,
        "data": {"fields": [{"name": "id", "type": "Int64"}, {"name": "vector", "type": "FloatVector(16)"}]},
    },
}


@pytest.mark.parametrize("path", DESCRIBED)
def test_the_lengths_a_description_tells_are_found_and_replaced_alone(path: str) -> None:
    method = "GET" if "v1" in path else "POST"
    operation = DIALECT.find_operation("rest", method, path)
    assert operation is not None
    assert operation.describes
    context = RequestContext(query="collectionName=docs")
    sent = b"" if method == "GET" else b'{"collectionName":"docs"}'
    request = DIALECT.read_request(operation, path, sent, context)
    assert request.collections == ("docs",)
    body = json.dumps(DESCRIBED[path]).encode()
    assert DIALECT.schemas is not None
    dims = DIALECT.schemas.find_dims(operation, request, body)
    assert {slot.dim for slot in dims} == {16}
    assert {slot.field for slot in dims} <= {"vector", "half"}
    assert DIALECT.schemas.write_dims(operation, body, [(slot, 16) for slot in dims]) == body
    edited = DIALECT.schemas.write_dims(operation, body, [(slot, 24) for slot in dims])
    text = (
        json.dumps(DESCRIBED[path]).replace('"value": 16', '"value": 24').replace("FloatVector(16)", "FloatVector(24)")
    )
    text = text.replace('"Float', "\\0").replace('"16"', '"24"').replace("\\0", '"Float')
    expected = json.loads(text)
    if method == "POST":
        expected["data"]["fields"][3]["params"][0]["value"] = "16"
    assert json.loads(edited) == expected


@given(seed=st.integers(0, 2**32), dim=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_random_rows_are_found_and_replaced_alone(seed: int, dim: int) -> None:
    rng = random.Random(seed)
    rows = [random_row(rng, dim) for _ in range(rng.randint(0, 4))]
    body = json.dumps({"data": rows, "collectionName": "docs", "x": {"data": [1, [2]]}}, indent=rng.choice((None, 2)))
    message = read(f"{V2}/upsert", body.encode())
    expected = [(name, row[name]) for row in rows for name in SCHEMA.vectors if row.get(name)]
    assert [slot.field for slot in message.slots] == [name for name, _ in expected]
    for slot, (name, value) in zip(message.slots, expected, strict=True):
        assert isinstance(slot, VectorSlot)
        form = SCHEMA.vectors[name]
        whole = read_form(form, write_form(form, np.array(value))) if isinstance(value, list) else None
        assert slot.rows.shape == (1, dim)
        assert whole is None or np.allclose(slot.rows[0], np.array(value, np.float32))
    edits = [(slot, np.zeros((1, 2), np.float32)) for slot in message.slots if isinstance(slot, VectorSlot)]
    edited = json.loads(message.edited(edits))
    for row in rows:
        for name in SCHEMA.vectors:
            if row.get(name):
                row[name] = [0, 0] if isinstance(row[name], list) else b64encode(bytes(4)).decode()
    assert edited == {"data": rows, "collectionName": "docs", "x": {"data": [1, [2]]}}


def random_row(rng: random.Random, dim: int) -> dict[str, Any]:
    row: dict[str, Any] = {"id": rng.randint(0, 99), "tags": [1, 2, 3], "meta": {"vector": [1, 2]}}
    vector = [round(rng.gauss(0, 5), 3) for _ in range(dim)]
    for name, form in SCHEMA.vectors.items():
        kind = rng.random()
        if form == "int8" and kind < 0.6:
            row[name] = [rng.randint(-128, 127) for _ in range(dim)]
        elif form in ("float16", "bfloat16") and kind < 0.3:
            row[name] = b64encode(write_form(form, np.array(vector, np.float32))).decode()
        elif form != "int8" and kind < 0.6:
            row[name] = vector
        elif kind < 0.8:
            row[name] = None
    return row


def test_text_that_is_no_json_is_refused_with_its_offset() -> None:
    with pytest.raises(MalformedError, match="not valid JSON at byte"):
        read(f"{V2}/search", b'{"collectionName": "docs", "data": [[1, 2')
