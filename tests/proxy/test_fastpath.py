"""The fast path: which requests take it, that it does what the full route does, and how it ends what breaks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import grpc as qdrant

from crossfade.proxy import native
from crossfade.proxy.native import OFF, filter_module, load_filter, why_full
from tests.proxy.recording import GrpcCall, Recorders
from tests.proxy.serving import Channel, Serving, start_serving, wait_until
from tests.proxy.test_serve_lifecycle import sample
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}, other: {dim: 24}}
collections:
  docs: {index_model: old, query_model: new, adapters: {new: adapters/new, other: adapters/other}}
"""
SEARCH, UPSERT, GET = (f"/qdrant.Points/{name}" for name in ("Search", "Upsert", "Get"))
VECTOR = toy_vectors(1, 1, NEW)[0]

pytestmark = pytest.mark.skipif(
    filter_module() is None, reason="the filter is compiled C, and was not built here: no C compiler at installation"
)


@pytest.fixture(scope="module")
def serving(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("fast")
    save_toy(directory / "adapters" / "new")
    save_toy(directory / "adapters" / "other", "other")
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(directory, upstream, SETTINGS) as serving:
        yield serving


@pytest.fixture(scope="module")
def slow(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The same with every request on the full route."""
    directory = tmp_path_factory.mktemp("full")
    save_toy(directory / "adapters" / "new")
    save_toy(directory / "adapters" / "other", "other")
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(directory, upstream, SETTINGS, environment={OFF: "1"}) as serving:
        yield serving


@pytest.fixture(scope="module")
def channel(serving: Serving) -> Iterator[Channel]:
    with serving.channel() as channel:
        yield channel


def search(vector: Any = VECTOR, collection: str = "docs", **fields: Any) -> bytes:
    message = qdrant.SearchPoints(collection_name=collection, vector=list(vector), limit=3, **fields)
    return bytes(message.SerializeToString())


def upsert(points: int) -> bytes:
    message = qdrant.UpsertPoints(collection_name="docs")
    for at, row in enumerate(toy_vectors(3, points, NEW)):
        message.points.add(id=qdrant.PointId(num=at), vectors=qdrant.Vectors(vector=qdrant.Vector(data=row)))
    return bytes(message.SerializeToString())


WITH_VECTORS = qdrant.WithVectorsSelector(enable=True)
GRPC = {
    "search": (SEARCH, search()),
    "search of the index's model": (SEARCH, search(toy_vectors(2, 1, OLD)[0])),
    "search of another collection": (SEARCH, search([1.0], "elsewhere")),
    "upsert": (UPSERT, upsert(5)),
    "large upsert": (UPSERT, upsert(3000)),
    "search for vectors": (SEARCH, search(with_vectors=WITH_VECTORS)),
    "points without vectors": (GET, qdrant.GetPoints(collection_name="docs").SerializeToString()),
}
FAST = {"search", "search of the index's model", "search of another collection", "upsert", "points without vectors"}


def routed(serving: Serving) -> dict[str, float]:
    metrics = serving.metrics()
    return {route: sample(metrics, "crossfade_routed_requests_total", route=route) for route in ("fast", "full")}


def ask_grpc(server: Serving, case: str) -> tuple[bytes, list[Any]]:
    """The answer to a case, and its metadata but for the time of day."""
    method, body = GRPC[case]
    metadata = [("x-own", "1"), *([("x-embedding-model", "new")] if method == UPSERT else [])]
    with server.channel() as channel:
        answer, call = channel.unary_unary(method).with_call(body, metadata=metadata, timeout=10)
    return answer, [one for one in call.initial_metadata() if one[0] != "date"]


@pytest.mark.parametrize("case", GRPC)
def test_both_routes_do_the_same(case: str, serving: Serving, slow: Serving, recorded: Recorders) -> None:
    recorded.grpc.answer = lambda call, context: b"\x0a\x02\x10\x01"
    seen = []
    for server in (serving, slow):
        answered = ask_grpc(server, case)
        received = recorded.grpc.last
        sent = [one for one in received.metadata if one[0] != "content-length"]
        seen.append((received.method, sent, received.body, *answered))
    assert seen[0] == seen[1]


def test_each_request_takes_the_route_it_needs(serving: Serving, slow: Serving, recorded: Recorders) -> None:
    for server, fast in ((serving, len(FAST)), (slow, 0)):
        time.sleep(1.1)  # until what other tests asked has been counted
        before = routed(server)
        for case in GRPC:
            ask_grpc(server, case)
        wait_until(lambda: sum(routed(server).values()) == sum(before.values()) + len(GRPC), 5, "counted")  # noqa: B023
        after = routed(server)
        assert {route: after[route] - before[route] for route in after} == {"fast": fast, "full": len(GRPC) - fast}


@pytest.mark.parametrize("body", [{"query": VECTOR.tolist()}, {"query": [1.0]}, {"query": VECTOR.tolist(), "x": 1.10}])
def test_both_routes_do_the_same_over_rest(
    body: dict[str, Any], serving: Serving, slow: Serving, recorded: Recorders
) -> None:
    seen = []
    for server in (serving, slow):
        with httpx.Client(base_url=server.rest, timeout=10) as client:
            answer = client.post("/collections/docs/points/query?timeout=3", json=body, headers={"x-own": "1"})
        calls = [(one.method, one.path, one.query, one.body, dict(one.headers)) for one in recorded.rest.calls]
        recorded.reset()
        for call in calls:
            call[-1].pop("host")  # the proxy's own address
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        seen.append((calls, answer.status_code, answer.content, headers))
    assert seen[0] == seen[1]


def test_requests_that_wait_together_get_each_their_own(channel: Channel, recorded: Recorders) -> None:
    vectors = toy_vectors(5, 200, NEW)
    plain = [np.frombuffer(row.tobytes(), "<f4") for row in vectors]
    recorded.grpc.answer = lambda call, context: call.body
    ask = channel.unary_unary(SEARCH)
    alone = [ask(search(row), timeout=10) for row in plain[:20]]
    together = [ask.future(search(row), timeout=30) for row in plain]
    for at, call in enumerate(together):
        mapped = qdrant.SearchPoints.FromString(call.result())
        assert len(mapped.vector) == OLD
        if at < len(alone):
            assert np.allclose(mapped.vector, qdrant.SearchPoints.FromString(alone[at]).vector, atol=1e-6)


def test_a_change_of_the_header_that_declares_models_counts_at_once(
    serving: Serving, channel: Channel, recorded: Recorders
) -> None:
    sound = serving.config.read_text()
    ask = channel.unary_unary(SEARCH)
    metadata = (("x-embedding-model", "other"), ("x-mine", "new"))
    marks = []
    for name in ("x-embedding-model", "x-mine", "x-embedding-model"):
        serving.config.write_text(f"{sound}detect: {{header: {name}}}\n")
        assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None
        _, call = ask.with_call(search(), metadata=metadata, timeout=10)
        marks.append(dict(call.initial_metadata())["x-crossfade"])
    serving.config.write_text(sound)
    assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None
    assert [mark.split("; ")[1] for mark in marks] == ["model=other", "model=new", "model=other"]
    assert len(recorded.grpc.calls) == 3


def test_the_mark_can_be_switched_off(serving: Serving, channel: Channel, recorded: Recorders) -> None:
    sound = serving.config.read_text()
    serving.config.write_text(f"{sound}answers: {{mark: false}}\n")
    assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None
    _, call = channel.unary_unary(SEARCH).with_call(search(), timeout=10)
    serving.config.write_text(sound)
    assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None
    assert "x-crossfade" not in dict(call.initial_metadata())


def test_clients_that_go_while_others_stay_are_counted_and_the_others_answered(
    serving: Serving, channel: Channel, recorded: Recorders
) -> None:
    go = threading.Event()
    held: list[GrpcCall] = []

    def hold(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        held.append(call)
        go.wait(20)
        return b""

    recorded.grpc.answer = hold
    counted = {"operation": "Search", "done": "cancelled"}
    before = sample(serving.metrics(), "crossfade_requests_total", **counted)
    calls = [channel.unary_unary(SEARCH).future(search(), timeout=30) for _ in range(40)]
    wait_until(lambda: len(held) == 40, 10, "all have arrived")
    for call in calls[::2]:
        call.cancel()
    wait_until(
        lambda: sample(serving.metrics(), "crossfade_requests_total", **counted) == before + 20, 5, "counted as gone"
    )
    go.set()
    assert {call.code() for call in calls[1::2]} == {grpc.StatusCode.OK}


def test_calls_that_end_at_any_moment_harm_neither_the_worker_nor_others(
    serving: Serving, channel: Channel, recorded: Recorders
) -> None:
    """Fewer than half of them end early: Envoy closes a connection on which most streams are reset at once."""
    numbers = random.Random(7)

    def answer(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        time.sleep(numbers.random() / 100)
        return b""

    recorded.grpc.answer = answer
    ask = channel.unary_unary(SEARCH)
    calls = []
    for at in range(1500):
        hurried = at % 5 == 0
        calls.append((hurried, ask.future(search(), timeout=numbers.random() / 50 if hurried else 60)))
        if at % 5 == 1:
            hurried, call = calls[-1]
            calls[-1] = (True, call)
            threading.Timer(numbers.random() / 50, call.cancel).start()
        if at % 100 == 99:
            time.sleep(0.05)
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
    codes = [(hurried, call.code()) for hurried, call in calls]
    assert {code for hurried, code in codes if hurried} <= allowed
    assert {code for hurried, code in codes if not hurried} == {grpc.StatusCode.OK}
    assert grpc.StatusCode.DEADLINE_EXCEEDED in {code for _, code in codes}
    assert serving.status()["workers"][0]["restarts"] == 0


def test_an_upstream_that_is_gone_is_named(serving: Serving) -> None:
    """Its address is one where nobody listens."""
    sound = serving.config.read_text()
    with serving.channel() as channel, httpx.Client(base_url=serving.rest) as client:
        lines = sound.splitlines()
        lines[1] = 'upstreams: {main: {kind: qdrant, grpc: "127.0.0.1:1", rest: "http://127.0.0.1:1"}}'
        serving.config.write_text("\n".join(lines))
        assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None
        failed = channel.unary_unary(SEARCH).future(search(), timeout=10)
        answer = client.post("/collections/docs/points/query", json={"query": VECTOR.tolist()})
        serving.config.write_text(sound)
        assert failed.code() == grpc.StatusCode.UNAVAILABLE
        assert "crossfade: upstream 'main' at 127.0.0.1:1 does not answer: " in (failed.details() or "")
        assert (answer.status_code, set(answer.json())) == (503, {"status", "time"})
        assert "upstream 'main' at http://127.0.0.1:1 does not answer" in answer.json()["status"]["error"]
    assert httpx.post(f"{serving.admin}/reload").json()["problem"] is None


def test_outside_envoy_a_channel_has_no_calls_and_refuses_what_it_cannot_take() -> None:
    loaded = load_filter()
    assert loaded is not None
    channel = loaded.open("a test's")
    assert (channel.take(10), channel.finished()) == ([], [])
    assert loaded.open("a test's").fileno() == channel.fileno() != loaded.open("another's").fileno()
    assert channel.select(b"one") < channel.select(b"one", b"two")
    with pytest.raises(ValueError, match="at most 32 headers"):
        channel.select(*[b"x"] * 33)
    with pytest.raises(TypeError, match="cannot create"):
        type(channel)()


def test_the_filter_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_full() is None
    monkeypatch.setenv(OFF, "1")
    assert load_filter() is None
    assert filter_module() is None
    assert why_full() == "CROSSFADE_FULL_ROUTE is set"


def test_an_operator_is_told_that_there_is_no_fast_path(slow: Serving, serving: Serving) -> None:
    told = "there is no fast path, requests cost about twice as much: CROSSFADE_FULL_ROUTE is set"
    assert told in slow.written()
    assert "no fast path" not in serving.written()


def test_where_the_filter_was_not_built_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load_filter", lambda: None)
    assert "install a C compiler" in (why_full() or "")
