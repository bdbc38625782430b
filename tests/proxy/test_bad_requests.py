"""What clients can send wrongly, and the message they get, on both transports; nothing reaches the upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import grpc as qdrant

from tests.proxy.recording import Recorders
from tests.proxy.serving import Channel, Serving, wait_until
from tests.proxy.toy_adapters import NEW, toy_vectors

GOOD = toy_vectors(1, 1, NEW)[0].tolist()
KNOWN = "models known here: old (16), new (24)"
REFUSALS: list[Any] = [
    pytest.param(
        "docs",
        [0.5] * 7,
        {},
        "INVALID_ARGUMENT",
        f"collection 'docs': a vector has 7 dimensions, but it is declared as 'new', which has 24; {KNOWN}; "
        "send vectors of one of these models",
        id="wrong dimension, undeclared",
    ),
    pytest.param(
        "docs",
        [0.5] * 16,
        {"x-embedding-model": "new"},
        "INVALID_ARGUMENT",
        f"collection 'docs': a vector has 16 dimensions, but it is declared as 'new', which has 24; {KNOWN}; "
        "declare one of 'old'",
        id="declared as what it cannot be",
    ),
    pytest.param(
        "docs",
        GOOD,
        {"x-embedding-model": "e5"},
        "INVALID_ARGUMENT",
        "collection 'docs': the header x-embedding-model declares the model 'e5', which is not configured; "
        "models known here: old (16), new (24), model-a (24), wide (32)",
        id="unknown declared model",
    ),
    pytest.param(
        "docs",
        [0.5] * 32,
        {"x-embedding-model": "wide"},
        "FAILED_PRECONDITION",
        "collection 'docs': holds vectors of 'old', and there is no adapter from 'wide'; it takes 'old', 'new'; "
        "fit an adapter and add it to the collection's adapters",
        id="known model without adapter",
    ),
]


@pytest.fixture(scope="module")
def channel(proxy: Serving) -> Iterator[Channel]:
    with proxy.channel() as channel:
        yield channel


def refused_grpc(channel: Channel, name: str, body: bytes, headers: dict[str, str]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/qdrant.Points/{name}")(body, metadata=tuple(headers.items()), timeout=10)
    return caught.value.code().name, caught.value.details() or ""


def refused_rest(proxy: Serving, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    everything = {"content-type": "application/json", **headers}
    answer = httpx.post(f"{proxy.rest}/collections/{path}", content=body, headers=everything)
    stated = answer.json()
    assert set(stated) == {"status", "time"}
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, stated["status"]["error"]


@pytest.mark.parametrize(("collection", "vector", "headers", "code", "message"), REFUSALS)
def test_a_query_that_cannot_be_served_is_refused_with_what_to_do(
    collection: str,
    vector: list[float],
    headers: dict[str, str],
    code: str,
    message: str,
    proxy: Serving,
    channel: Channel,
    recorded: Recorders,
) -> None:
    body = qdrant.SearchPoints(collection_name=collection, vector=vector).SerializeToString()
    assert refused_grpc(channel, "Search", body, headers) == (code, f"crossfade: {message}")
    text = json.dumps({"vector": vector, "limit": 1}).encode()
    assert refused_rest(proxy, f"{collection}/points/search", text, headers) == (400, f"crossfade: {message}")
    assert not recorded.grpc.calls
    assert not recorded.rest.calls


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_the_row(bad: float, channel: Channel, recorded: Recorders) -> None:
    points = qdrant.UpsertPoints(collection_name="docs")
    for at in range(3):
        vector = [bad if at == 2 else 0.5, *GOOD[1:]]
        points.points.add(id=qdrant.PointId(num=at), vectors=qdrant.Vectors(vector=qdrant.Vector(data=vector)))
    assert refused_grpc(channel, "Upsert", points.SerializeToString(), {"x-embedding-model": "new"}) == (
        "INVALID_ARGUMENT",
        "crossfade: collection 'docs': vector 2 of 3 (counted from 0) contains NaN or infinity; "
        "a model never gives that, look at how it was computed",
    )
    assert not recorded.grpc.calls


def test_a_number_beyond_a_float_is_refused_on_rest(proxy: Serving, recorded: Recorders) -> None:
    body = json.dumps({"vector": [0.5, *GOOD[1:]]}).replace("0.5", "1e39", 1).encode()
    status, message = refused_rest(proxy, "docs/points/search", body, {})
    assert (status, "vector 0 of 1" in message, "NaN or infinity" in message) == (400, True, True)
    assert not recorded.rest.calls


def test_truncated_protobuf_is_refused_with_the_byte(channel: Channel, recorded: Recorders) -> None:
    body = qdrant.SearchPoints(collection_name="docs", vector=GOOD).SerializeToString()
    code, message = refused_grpc(channel, "Search", body[:-3], {})
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("crossfade: Search: the request cannot be read: SearchPoints")
    assert "not a valid protobuf message at byte" in message
    assert not recorded.grpc.calls


@pytest.mark.parametrize("body", [b"", b"{", b"vector: 1", b'{"vector": [0.5,]}', b'{"vector": [0.5]} x', b"\xff{}"])
def test_a_body_that_is_not_json_is_refused_with_the_byte(body: bytes, proxy: Serving, recorded: Recorders) -> None:
    status, message = refused_rest(proxy, "docs/points/search", body, {})
    assert status == 400
    assert message.startswith("crossfade: Search: the request cannot be read: ")
    assert "byte" in message
    assert not recorded.rest.calls


@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("br", b"{}", "compressed with 'br'; Crossfade reads gzip, deflate and identity"),
        ("gzip", b"{}", "its gzip compression is broken: "),
        (
            "gzip",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae",
            "its gzip compression ends early, after 12 bytes",
        ),
    ],
)
def test_compression_that_cannot_be_read_is_refused(
    encoding: str, body: bytes, message: str, proxy: Serving, recorded: Recorders
) -> None:
    status, said = refused_rest(proxy, "docs/points/search", body, {"content-encoding": encoding})
    assert status == 400
    assert message in said
    assert not recorded.rest.calls


def test_non_ascii_in_a_message_arrives_on_grpc(channel: Channel) -> None:
    body = qdrant.SearchPoints(collection_name="docs é", vector=[0.5] * 7).SerializeToString()
    _, message = refused_grpc(channel, "Search", body, {})
    assert message.startswith("crossfade: collection 'docs é': a vector has 7 dimensions")


def test_an_encoder_that_fails_is_told_as_unavailable(proxy: Serving, channel: Channel, recorded: Recorders) -> None:
    query = qdrant.QueryPoints(collection_name="docs é")
    query.query.nearest.document.text, query.query.nearest.document.model = "fail", "model-a"
    code, message = refused_grpc(channel, "Query", query.SerializeToString(), {})
    assert code == "UNAVAILABLE"
    assert message.startswith("crossfade: model 'model-a': the encoder tests.proxy.encoding_function:encode failed")
    text = json.dumps({"query": {"text": "fail", "model": "model-a"}}).encode()
    status, said = refused_rest(proxy, f"{quote('docs é')}/points/query", text, {})
    assert (status, said) == (503, message)
    assert not recorded.grpc.calls
    assert not recorded.rest.calls


def test_refusals_are_counted_by_kind(proxy: Serving, channel: Channel) -> None:
    body = qdrant.SearchPoints(collection_name="docs", vector=[0.5]).SerializeToString()
    refused_grpc(channel, "Search", body, {})
    counted = 'kind="wrong_dimension",operation="Search"'
    wait_until(lambda: counted in proxy.metrics(), 5, "the count")
    assert counted in proxy.metrics()
