"""Plain searches of Milvus requests asked otherwise, and everything else left as it was."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import MalformedError, Message, Operation, RequestContext, Schema
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.forms import write_form
from crossfade.backends.milvus.reading import MilvusReading
from crossfade.backends.milvus.schema import SERVICE
from crossfade.backends.reading import Asking

DIALECT, READING = MilvusDialect(), MilvusReading()
SCHEMA = Schema({"v": "float", "half": "float16"}, key="pk", text_ids=True)
CONTEXT = RequestContext(find_schema={"docs": SCHEMA}.get)
V2, V1 = "/v2/vectordb/entities/search", "/v1/vector/search"
FORMS = {"float": 101, "float16": 102, "bfloat16": 103}


def read(transport: Any, path: str, body: bytes) -> tuple[Operation, Message]:
    operation = DIALECT.find_operation(transport, "POST", path)
    assert operation is not None
    return operation, DIALECT.read_request(operation, path, body, CONTEXT)


def read_grpc(message: Any, name: str = "Search") -> tuple[Operation, Message]:
    return read("grpc", f"{SERVICE}/{name}", message.SerializeToString() + b"\xf8\x7d\x96\x01")


def search_of(params: dict[str, str], values: list[bytes], kind: int = 101, **more: Any) -> Any:
    group = common_pb2.PlaceholderGroup(placeholders=[{"tag": "$0", "type": kind, "values": values}])
    return milvus_pb2.SearchRequest(
        collection_name="docs", partition_names=["a"], dsl_type=1, guarantee_timestamp=7, nq=len(values),
        placeholder_group=group.SerializeToString(),
        search_params=[common_pb2.KeyValuePair(key=key, value=value) for key, value in params.items()], **more,
    )  # fmt: skip


def params_of(message: Any) -> dict[str, str]:
    params: dict[str, str] = {}
    for pair in message.search_params:
        params.setdefault(pair.key, pair.value)
    return params


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_grpc_searches_are_asked_otherwise_and_everything_else_stays(seed: int) -> None:
    rng = random.Random(seed)
    form, count = rng.choice([*FORMS]), rng.randint(1, 4)
    rows = np.array([[rng.random() for _ in range(4)] for _ in range(count)], np.float32)
    params = {"topk": "5", "params": json.dumps({"ef": 7, "x": "é"}), "metric_type": "L2", "anns_field": "v"}
    params |= rng.choice([{}, {"offset": "3"}]) | rng.choice([{}, {"round_decimal": "2"}])
    fields = rng.choice([[], ["title"], ["title", "v"], ["*"]])
    dsl = rng.choice(["", "n > 3 or n < {low}"])
    message = search_of(params, [write_form(form, row) for row in rows], FORMS[form], output_fields=fields, dsl=dsl)
    message.expr_template_values["low"].int64_val = 3
    operation, request = read_grpc(message)
    searches = READING.find_searches(operation, request)
    assert searches is not None
    for place, one in enumerate(searches):
        assert (one.limit, one.offset, one.threshold) == (5, int(params.get("offset", 0)), None)
        assert (one.wants_payload, one.wants_vectors) == (bool(fields), bool({"v", "*"} & {*fields}))
        np.testing.assert_allclose(one.slot.rows[one.row], rows[place], atol=1e-2)  # type: ignore[union-attr]
    among = rng.choice([None, ["a", 'q"']])
    narrow, bare = rng.random() < 0.5, rng.random() < 0.5
    kept = [rng.choice(searches)] if among else list(searches)
    vector, limit = np.array([0.5, -1.5, 2.0], np.float32), rng.randint(1, 20)
    asked = [(one, Asking(vector, limit, among, narrow, bare)) for one in kept]
    assert READING.split_searches(asked) == ([[one] for one in asked] if among else [asked])
    found = milvus_pb2.SearchRequest.FromString(READING.form_searches(operation, request, asked))
    group = common_pb2.PlaceholderGroup.FromString(found.placeholder_group)
    assert group.placeholders[0].type == FORMS[form]
    assert list(group.placeholders[0].values) == [write_form(form, vector)] * len(kept)
    told = params_of(found)
    inner = json.loads(told.pop("params"))
    assert inner == {"ef": max(7, limit), "x": "é", **({"nprobe": 65536} if among else {})}
    expected = {**params, "topk": str(limit), "round_decimal": "-1"}
    assert told == {key: value for key, value in expected.items() if key not in ("params", "offset")}
    assert found.nq == len(kept)
    assert list(found.output_fields) == (["pk"] if bare else fields)
    if among is None:
        assert found.dsl == dsl
    else:
        named = 'pk in ["a", "q\\""]'
        assert found.dsl == (f"({dsl}) and {named}" if narrow and dsl else named)
    assert bool(found.expr_template_values) == (among is None or (narrow and bool(dsl)))
    for name in ("collection_name", "partition_names", "dsl_type", "guarantee_timestamp"):
        assert getattr(found, name) == getattr(message, name)
    assert found.SerializeToString().find(b"\xf8\x7d\x96\x01") >= 0


ROW = struct.pack("<2f", 1, 2)
TOPK = {"topk": "5", "anns_field": "v"}
OTHERWISE = [
    search_of({**TOPK, "group_by_field": "n"}, [ROW]),
    search_of({**TOPK, "iterator": "True"}, [ROW]),
    search_of({**TOPK, "search_iter_v2": "true"}, [ROW]),
    search_of({**TOPK, "order_by_fields": "n"}, [ROW]),
    search_of({**TOPK, "params": '{"radius": 0.5}'}, [ROW]),
    search_of({**TOPK, "radius": "0.5"}, [ROW]),
    search_of({"anns_field": "v"}, [ROW]),
    search_of({**TOPK, "topk": "16384"}, [ROW]),
    search_of({**TOPK, "offset": "many"}, [ROW]),
    search_of(TOPK, [ROW] * 101),
    search_of(TOPK, [b"\x01"], kind=100),
    search_of(TOPK, [ROW], function_score={}),
    search_of(TOPK, [ROW], highlighter={}),
    milvus_pb2.SearchRequest(collection_name="docs", ids={"int_id": {"data": [3]}}),
    search_of(TOPK, [ROW], db_name="elsewhere"),  # its key is not known
]


@pytest.mark.parametrize("message", OTHERWISE)
def test_other_grpc_requests_are_not_plain_searches(message: Any) -> None:
    assert READING.find_searches(*read_grpc(message)) is None


def test_hybrid_searches_and_queries_are_not_plain_searches() -> None:
    hybrid = milvus_pb2.HybridSearchRequest(collection_name="docs", requests=[search_of(TOPK, [ROW])])
    assert READING.find_searches(*read_grpc(hybrid, "HybridSearch")) is None
    assert READING.find_searches(*read_grpc(milvus_pb2.QueryRequest(collection_name="docs"), "Query")) is None


def test_texts_become_vectors() -> None:
    operation, request = read_grpc(search_of(TOPK, [b"some words", b"others"], kind=21))
    searches = READING.find_searches(operation, request)
    assert searches is not None
    asked = [(one, Asking(np.ones(2, np.float32) * at, 3)) for at, one in enumerate(searches)]
    found = milvus_pb2.SearchRequest.FromString(READING.form_searches(operation, request, asked))
    group = common_pb2.PlaceholderGroup.FromString(found.placeholder_group)
    assert group.placeholders[0].type == 101
    assert list(group.placeholders[0].values) == [struct.pack("<2f", 0, 0), struct.pack("<2f", 1, 1)]


def test_parameters_that_are_no_json_are_left_to_milvus() -> None:
    operation, request = read_grpc(search_of({**TOPK, "params": "{"}, [ROW]))
    searches = READING.find_searches(operation, request)
    assert searches is not None
    asked = [(searches[0], Asking(np.ones(2, np.float32), 3, ["a"]))]
    found = milvus_pb2.SearchRequest.FromString(READING.form_searches(operation, request, asked))
    assert params_of(found)["params"] == "{"


@pytest.mark.parametrize("path", [V2, V1])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rest_searches_are_asked_otherwise_and_everything_else_stays(path: str, seed: int) -> None:
    rng = random.Random(seed)
    body: dict[str, Any] = {"collectionName": "docs", **({"data": [[1, 2]]} if path == V2 else {"vector": [1, 2]})}
    body |= {"annsField": "v", "big": 12345678901234567890.10}
    choices: dict[str, list[Any]] = {
        "limit": [5, 300], "offset": [0, 3], "filter": ["", "n > 3"], "outputFields": [[], ["title"], ["v"], ["*"]],
        "searchParams": [{"metricType": "L2", "params": {"ef": 7, "nprobe": 3}}], "partitionNames": [["a"]],
    }  # fmt: skip
    for key, values in choices.items():
        if rng.random() < 0.6:
            body[key] = rng.choice(values)
    operation, request = read("rest", path, json.dumps(body, indent=rng.choice([None, 1])).encode())
    searches = READING.find_searches(operation, request)
    assert searches is not None
    fields = body.get("outputFields", [])
    assert (searches[0].limit, searches[0].offset) == (body.get("limit", 100), body.get("offset", 0))
    assert (searches[0].wants_payload, searches[0].wants_vectors) == (bool(fields), bool({"v", "*"} & {*fields}))
    among = rng.choice([None, ["a", 'q"']])
    narrow, bare, limit = rng.random() < 0.5, rng.random() < 0.5, rng.randint(1, 20)
    asked = [(searches[0], Asking(np.array([0.5, 2.0, 1.0], np.float32), limit, among, narrow, bare))]
    found = json.loads(READING.form_searches(operation, request, asked))
    expected = {**body, "limit": limit, **({"offset": 0} if "offset" in body else {})}
    expected |= {"data": [[0.5, 2.0, 1.0]]} if path == V2 else {"vector": [0.5, 2.0, 1.0]}
    if bare and "outputFields" in body:
        expected["outputFields"] = []
    if among is not None:
        kept = body.get("filter", "") if narrow else ""
        expected["filter"] = f'({kept}) and pk in ["a", "q\\""]' if kept else 'pk in ["a", "q\\""]'
    probes = {"nprobe": 65536} if among else {}
    if "searchParams" in body:
        inner = {"ef": max(7, limit), "nprobe": 3, **probes}
        expected["searchParams"] = {**body["searchParams"], **probes, "params": inner}
    elif among and path == V2:
        expected["searchParams"] = {"params": probes}
    assert found == expected


REST_OTHERWISE: list[dict[str, Any]] = [
    {"data": [[1, 2], [3, 4]]},
    {"data": [[1, 2]], "groupingField": "n"},
    {"data": [[1, 2]], "limit": "many"},
    {"data": [[1, 2]], "limit": 16384},
    {"data": [[1, 2]], "functionScore": {"functions": [{}]}},
    {"data": [[1, 2]], "searchParams": {"params": {"radius": 0.5}}},
    {"data": [{"1": 0.5}], "annsField": "sparse"},
    {},
]


@pytest.mark.parametrize("body", REST_OTHERWISE)
def test_other_rest_requests_are_not_plain_searches(body: dict[str, Any]) -> None:
    text = json.dumps({"collectionName": "docs", "annsField": "v", **body}).encode()
    assert READING.find_searches(*read("rest", V2, text)) is None


def test_rest_answers_take_other_hits_in_another_order_with_other_scores() -> None:
    operation, request = read("rest", V2, b'{"collectionName":"docs","data":[[1,2]],"annsField":"v"}')
    body = b'{"code":0,"data":[{"distance":0.5,"id":"a","n":1.10},{"distance":0.25,"pk":"b"}],"topks":[2],"cost":3}'
    (hits,) = READING.read_hits(operation, request, body)
    assert [(hit.id, hit.score) for hit in hits] == [("a", 0.5), ("b", 0.25)]
    moved = [hits[1]._replace(score=0.75)]
    formed = READING.form_hits(operation, request, body, [moved])
    assert formed == b'{"code":0,"data":[{"distance":0.75,"pk":"b"}],"topks":[1],"cost":3}'
    for bad in (b'{"code":0}', b'{"data":[{"id":"a"}]}', b'{"data":[{"id":3,"distance":1}]}'):
        with pytest.raises(MalformedError):
            READING.read_hits(operation, request, bad)
    assert READING.read_hits(operation, request, b'{"data":[]}') == [[]]


def test_large_numbers_come_as_texts_and_stay_numbers() -> None:
    context = RequestContext(find_schema={"docs": Schema({"v": "float"}, key="pk")}.get)
    operation = DIALECT.find_operation("rest", "POST", V2)
    assert operation is not None
    request = DIALECT.read_request(operation, V2, b'{"collectionName":"docs","data":[[1,2]]}', context)
    (hits,) = READING.read_hits(operation, request, b'{"data":[{"id":"9007199254740993","distance":1}]}')
    assert hits[0].id == 9007199254740993
