"""What Crossfade must not touch on gRPC: bytes, metadata, deadlines, cancellation, compression and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as qdrant

from crossfade.adapters.base import Adapter
from tests.proxy.recording import GrpcCall, Recorders
from tests.proxy.serving import Channel, Serving, wait_until
from tests.proxy.toy_adapters import NEW, OLD, toy_vectors

NATIVE = "/qdrant.Points/Delete"
ADAPTED = "/qdrant.Points/Search"
MAPPED = qdrant.SearchPoints(collection_name="docs", vector=toy_vectors(1, 1, NEW)[0].tolist(), limit=3)
BODIES = {NATIVE: b"\x0a\x04docs", ADAPTED: MAPPED.SerializeToString()}
READS = qdrant.SearchPoints(collection_name="docs", vector=toy_vectors(1, 1, NEW)[0].tolist(), limit=3)
READS.with_vectors.enable = True
CASES = [
    pytest.param(NATIVE, BODIES[NATIVE], id="native"),
    pytest.param(ADAPTED, BODIES[ADAPTED], id="adapted"),
    pytest.param(ADAPTED, READS.SerializeToString(), id="adapted answer"),
]
METADATA = (
    ("x-one", "1"),
    ("x-trace-bin", b"\x00\x01\xff\n"),
    ("x-many", "c"),
    ("x-many", "a"),
    ("x-many", "b"),
    ("x-under_score", "kept"),
    ("x-trace-bin", b""),
    ("api-key", "secret"),
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "https"),
)
cases = pytest.mark.parametrize(("method", "body"), CASES)


@pytest.fixture(scope="module")
def channel(proxy: Serving) -> Iterator[Channel]:
    with proxy.channel() as channel:
        yield channel


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param("/qdrant.Points/Delete", b"\x0a\x04docs", id="no vectors"),
        pytest.param("/qdrant.Points/NotInventedYet", b"\x00\xff\x0a", id="unknown method"),
        pytest.param("/my.own.Service/Do", b"", id="unknown service, empty message"),
        pytest.param("/qdrant.Collections/Create", b"\x0a\x04docs\xf8\x7d\x01", id="unknown field"),
        pytest.param(
            "/qdrant.Points/Search",
            qdrant.SearchPoints(collection_name="elsewhere", vector=[1.0, 2.0]).SerializeToString(),
            id="collection without configuration",
        ),
        pytest.param(
            "/qdrant.Points/Search",
            qdrant.SearchPoints(collection_name="docs é", vector=toy_vectors(2, 1, OLD)[0]).SerializeToString(),
            id="vector of the index's own model",
        ),
    ],
)
def test_requests_and_answers_pass_byte_for_byte_with_all_their_metadata(
    method: str, body: bytes, channel: Channel, recorded: Recorders
) -> None:
    def answer(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("y-many", "2"), ("y-many", "1"), ("y-bin", b"\x00\xfe")))
        context.set_trailing_metadata((("z-many", "2"), ("z-many", "1"), ("z-bin", b"\x00\xfd")))
        return b"any bytes \x00\xff" + call.body

    recorded.grpc.answer = answer
    result, call = channel.unary_unary(method).with_call(body, metadata=METADATA, timeout=5)
    received = recorded.grpc.last
    assert (received.method, received.body, result) == (method, body, b"any bytes \x00\xff" + body)
    own = {"user-agent", "content-length"}
    for key in dict(METADATA):
        assert received.values(key) == [value for name, value in METADATA if name == key], key
    assert {name for name, _ in received.metadata} - own == set(dict(METADATA))
    initial = [(name, value) for name, value in call.initial_metadata() if name.startswith("y-")]
    assert initial == [("y-many", "2"), ("y-many", "1"), ("y-bin", b"\x00\xfe")]
    assert list(call.trailing_metadata()) == [("z-many", "2"), ("z-many", "1"), ("z-bin", b"\x00\xfd")]


@cases
def test_the_clients_deadline_holds_and_reaches_the_upstream(
    method: str, body: bytes, channel: Channel, recorded: Recorders
) -> None:
    ended = threading.Event()
    remaining: list[float] = []

    def stall(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        remaining.append(context.time_remaining())
        context.add_callback(ended.set)
        ended.wait(20)
        return b""

    recorded.grpc.answer = stall
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(body, timeout=0.6)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5
    assert ended.wait(5), "the upstream call went on after the deadline"
    assert 0 < remaining[0] < 0.7


@cases
def test_a_cancelled_call_is_cancelled_at_the_upstream(
    method: str, body: bytes, channel: Channel, recorded: Recorders
) -> None:
    arrived, ended = threading.Event(), threading.Event()

    def stall(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.add_callback(ended.set)
        arrived.set()
        ended.wait(20)
        return b""

    recorded.grpc.answer = stall
    calling = channel.unary_unary(method).future(body)
    assert arrived.wait(5)
    calling.cancel()
    assert ended.wait(5), "the upstream call went on after the client cancelled"


@pytest.mark.parametrize("path", ["native", "adapted"])
def test_what_a_client_cancelled_counts_as_cancelled_and_is_no_error(
    path: str, proxy: Serving, channel: Channel, recorded: Recorders
) -> None:
    before = proxy.written()
    test_a_cancelled_call_is_cancelled_at_the_upstream(
        *((NATIVE, BODIES[NATIVE]) if path == "native" else (ADAPTED, BODIES[ADAPTED])), channel, recorded
    )
    if path == "adapted":
        counted = 'crossfade_requests_total{done="cancelled",operation="Search",transport="grpc"}'
        wait_until(lambda: counted in proxy.metrics(), 5, counted)
    assert 'kind="upstream_down",operation="Search"' not in proxy.metrics()
    assert "Traceback" not in proxy.written()[len(before) :]


@cases
def test_compressed_requests_and_answers_pass(
    method: str, body: bytes, proxy: Serving, recorded: Recorders, adapter: Adapter
) -> None:
    answered = qdrant.SearchResponse(time=1.5, result=[qdrant.ScoredPoint(score=0.25)] * 200).SerializeToString()

    def answer(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return answered

    recorded.grpc.answer = answer
    with proxy.channel() as channel:
        ask = channel.unary_unary(method)
        plain = ask(body, timeout=5)
        expected = recorded.grpc.last.body
        assert ask(body, timeout=5, compression=grpc.Compression.Gzip) == plain == answered
        assert recorded.grpc.last.body == expected
        assert ask(body, timeout=5, compression=grpc.Compression.Deflate) == answered
        assert recorded.grpc.last.body == expected


@cases
def test_errors_of_the_upstream_arrive_with_code_message_and_details(
    method: str, body: bytes, channel: Channel, recorded: Recorders
) -> None:
    def fail(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05\x12\x02\xff\x00"), ("x-own", "1")))
        context.abort(grpc.StatusCode.NOT_FOUND, "Sammlung „docs“ fehlt % 100%25 \n é")
        raise AssertionError  # abort raises

    recorded.grpc.answer = fail
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(body, timeout=5)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "Sammlung „docs“ fehlt % 100%25 \n é")
    trailing = dict(error.trailing_metadata())
    assert trailing["grpc-status-details-bin"] == b"\x08\x05\x12\x02\xff\x00"
    assert trailing["x-own"] == "1"


@cases
def test_errors_after_the_first_metadata_arrive_too(
    method: str, body: bytes, channel: Channel, recorded: Recorders
) -> None:
    def fail(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("y-first", "sent"),))
        context.abort(grpc.StatusCode.ABORTED, "später")
        raise AssertionError  # abort raises

    recorded.grpc.answer = fail
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(body, timeout=5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "später")
    error: Any = caught.value
    assert dict(error.initial_metadata())["y-first"] == "sent"


def test_a_large_answer_arrives_whole(channel: Channel, recorded: Recorders) -> None:
    large = bytes(range(256)) * (1 << 17)  # 32 MiB
    recorded.grpc.answer = lambda call, context: large
    for method in (NATIVE, ADAPTED):
        assert channel.unary_unary(method)(BODIES[method], timeout=20) == large


@pytest.mark.parametrize("model", ["new", "old"])
def test_a_large_write_arrives_whole(model: str, channel: Channel, recorded: Recorders, adapter: Adapter) -> None:
    rows = toy_vectors(6, 300, NEW if model == "new" else OLD)
    sent, expected = qdrant.UpsertPoints(collection_name="docs"), qdrant.UpsertPoints(collection_name="docs")
    for message, values in ((sent, rows), (expected, adapter.document.apply(rows) if model == "new" else rows)):
        for at, row in enumerate(values):
            vectors = qdrant.Vectors(vector=qdrant.Vector(dense=qdrant.DenseVector(data=row)))
            message.points.add(
                id=qdrant.PointId(num=at), vectors=vectors, payload={"text": qdrant.Value(string_value="x" * 9999)}
            )
    assert 1 << 20 < sent.ByteSize() < 1 << 22
    channel.unary_unary("/qdrant.Points/Upsert")(
        sent.SerializeToString(), metadata=(("x-embedding-model", model),), timeout=20
    )
    received = qdrant.UpsertPoints.FromString(recorded.grpc.last.body)
    for found, wanted in zip(received.points, expected.points, strict=True):
        data = found.vectors.vector.dense.data
        np.testing.assert_allclose(data, wanted.vectors.vector.dense.data, rtol=0, atol=1e-6)
        wanted.vectors.vector.dense.data[:] = data
    assert received == expected


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_message_beyond_the_limit_is_refused_with_both_numbers(
    compression: grpc.Compression | None, channel: Channel, recorded: Recorders
) -> None:
    large = qdrant.UpsertPoints(collection_name="docs")
    for at in range(6000):
        large.points.add(id=qdrant.PointId(num=at), vectors=qdrant.Vectors(vector=qdrant.Vector(data=[0.5] * 200)))
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/qdrant.Points/Upsert")(large.SerializeToString(), timeout=20, compression=compression)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "beyond the limit of 4,194,304 bytes; send smaller batches or raise limits.body" in (
        caught.value.details() or ""
    )
    assert not recorded.grpc.calls
