"""The new index slow, failing or talking nonsense: no read that the old one can serve fails; what is not migrated is
left alone, byte for byte."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import qdrant_client.grpc as q
from qdrant_client import QdrantClient
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crossfade.proxy.migration.machine import State
from tests.proxy.migrating import OLD, TARGET, Migrating, first_view, ids
from tests.proxy.recording import GrpcCall, Recorders, RestCall
from tests.proxy.serving import Serving, start_serving
from tests.proxy.toy_adapters import save_toy

SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: adapter}
    text: payload.text
    migrate: {to: new, fall_back_after: 300ms}
  others: {index_model: old, query_model: new, adapters: {new: adapter}}
"""
HIT = q.ScoredPoint(id=q.PointId(num=7), score=0.5)


@pytest.fixture(scope="module")
def serving(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("breaks")
    save_toy(folder / "adapter")
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(folder, upstream, SETTINGS) as serving:
        yield serving


class Slow(Response):
    """An answer that does not come before it is released."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self._released = released

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while not self._released.is_set():
            await asyncio.sleep(0.02)
        await super().__call__(scope, receive, send)


class Target:
    """What the target answers in a test; the old collection always answers one hit."""

    def __init__(self, recorded: Recorders) -> None:
        self.released = threading.Event()
        self.way = "well"
        recorded.grpc.answer = self.answer_grpc
        recorded.rest.answer = self.answer_rest

    def answer_grpc(self, call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        there = TARGET.encode() in call.body
        if there and self.way == "slow":
            self.released.wait(30)
        if there and self.way == "failing":
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        if there and self.way == "nonsense":
            return b"\x0a\xff"
        if call.method.endswith("Count"):
            return q.CountResponse(result=q.CountResult(count=1)).SerializeToString()
        return q.QueryResponse(result=[HIT], time=0.1).SerializeToString()

    def answer_rest(self, call: RestCall) -> Response:
        there = TARGET in call.path
        if there and self.way == "slow":
            return Slow(self.released)
        if there and self.way == "failing":
            return Response(b'{"status":{"error":"broken"}}', status_code=500)
        if there and self.way == "nonsense":
            return Response(b"{", media_type="application/json")
        body = b'{"result":{"points":[{"id":7,"version":1,"score":0.5}]},"status":"ok","time":0.1}'
        return Response(b'{"result":{"count":1},"status":"ok"}' if "count" in call.path else body)


@pytest.fixture
def target(recorded: Recorders) -> Iterator[Target]:
    target = Target(recorded)
    yield target
    target.released.set()


def migrating_as(serving: Serving, name: str, **view: Any) -> Migrating:
    """A view of a migration of its own: another one's target may still be resting."""
    direct = QdrantClient(":memory:")
    migrating = Migrating(serving, direct, first_view(id=name))
    migrating.move(migrated=0.5, **view)
    return migrating


def ask_rest(serving: Serving) -> httpx.Response:
    body = {"query": [0.1] * 24, "limit": 5}
    return httpx.post(f"{serving.rest}/collections/docs/points/query", json=body, timeout=30)


@pytest.mark.parametrize("way", ["failing", "nonsense", "slow"])
@pytest.mark.parametrize("on_grpc", [True, False])
def test_a_query_is_answered_by_the_old_index_alone(way: str, on_grpc: bool, serving: Serving, target: Target) -> None:
    reasons = {"failing": "refused", "nonsense": "unreadable", "slow": "slow"}
    target.way = way
    for state, percent, wanted in ((State.BACKFILLING, 0.0, "crossfade"), (State.SWITCHED, 100.0, "native")):
        if way == "nonsense" and wanted == "native":
            continue  # an answer that goes through unread is the client's to judge
        migrating_as(serving, f"{way}-{on_grpc}-{wanted}", state=state, percent=percent)
        if on_grpc:
            assert ids(serving.client(grpc=True).query_points(OLD, [0.1] * 24, limit=5).points) == [7]
        else:
            answer = ask_rest(serving)
            assert answer.json()["result"]["points"][0]["id"] == 7
            assert answer.headers["x-crossfade"].endswith(f"; instead-of={wanted}; because={reasons[way]}")


@pytest.mark.parametrize("migrated", [0.0, 0.5])
def test_an_answer_without_hits_goes_to_the_client_as_it_is(
    migrated: float, serving: Serving, recorded: Recorders
) -> None:
    recorded.rest.answer = lambda call: Response(b'{"status":"ok"}', media_type="application/json")
    migrating = migrating_as(serving, f"hitless-{migrated}")
    migrating.move(migrated=migrated, shadow=100.0)
    answer = ask_rest(serving)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_target_that_was_slow_is_not_waited_for_again_while_it_rests(serving: Serving, target: Target) -> None:
    target.way = "slow"
    migrating_as(serving, "rests")
    assert ask_rest(serving).headers["x-crossfade"].endswith("because=slow")
    target.way = "well"
    assert ask_rest(serving).headers["x-crossfade"].endswith("because=resting")


@pytest.mark.parametrize("way", ["failing", "slow"])
def test_counts_that_belong_to_the_new_index_are_answered_by_the_old_one(
    way: str, serving: Serving, target: Target
) -> None:
    target.way = way
    for on_grpc in (True, False):
        migrating_as(serving, f"count-{way}-{on_grpc}", state=State.SWITCHED, percent=100.0)
        assert serving.client(grpc=on_grpc).count(OLD).count == 1


def test_half_of_a_short_deadline_is_left_for_the_old_index(serving: Serving, target: Target) -> None:
    target.way = "slow"
    migrating_as(serving, "deadline", state=State.SWITCHED, percent=100.0)
    assert ids(serving.client(grpc=True).query_points(OLD, [0.1] * 24, limit=5, timeout=2).points) == [7]


def test_an_error_of_the_old_index_reaches_the_client_as_it_is(serving: Serving, recorded: Recorders) -> None:
    def refuse(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such field é")
        return b""

    recorded.grpc.answer = refuse
    migrating_as(serving, "old-fails")
    with pytest.raises(grpc.RpcError) as refused:
        serving.client(grpc=True).query_points(OLD, [0.1] * 24)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such field é")


def test_collections_that_are_not_migrated_are_asked_byte_for_byte_as_without_one(
    serving: Serving, recorded: Recorders
) -> None:
    vector = np.random.default_rng(0).normal(size=24).astype(np.float32)
    search = q.SearchPoints(collection_name="others", vector=vector, limit=3).SerializeToString()
    calls = [
        ("/qdrant.Points/Search", search),
        ("/qdrant.Points/Count", q.CountPoints(collection_name="others").SerializeToString() + b"\xf8\x7d\x96\x01"),
        ("/qdrant.Points/Scroll", q.ScrollPoints(collection_name="unknown").SerializeToString()),
        ("/qdrant.Collections/Get", q.GetCollectionInfoRequest(collection_name="others").SerializeToString()),
    ]
    rest = [
        ("POST", "/collections/others/points/count", b'{"exact" : true}'),
        ("GET", "/collections/others?x=1", b""),
        ("POST", "/collections/others/points/query", b'{"query": [1.0], "limit": 3.0e0}'),
    ]

    def send() -> list[Any]:
        recorded.reset()
        with serving.channel() as channel:
            for path, body in calls:
                channel.unary_unary(path)(body)
        for method, path, body in rest[:2]:
            httpx.request(method, serving.rest + path, content=body)
        return [(call.method, call.body) for call in recorded.grpc.calls] + [
            (call.method, call.path, call.query, call.body) for call in recorded.rest.calls
        ]

    migrating = migrating_as(serving, "others-before", state=State.BACKFILLING)
    first = send()
    for state in (State.SWITCHED, State.COMPLETED):
        migrating.move(state=state, percent=100.0)
        assert send() == first
    assert first[1][1] == calls[1][1]
    assert first[-2][3] == rest[0][2]
