"""Writes to a collection under migration, through a running Crossfade: what the journal holds when the upstream sees
them, what the upstream gets, and what stands in the journal after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import orjson
import pytest
import qdrant_client.grpc as qdrant
from starlette.responses import Response

from crossfade.backends.index import PointId
from crossfade.proxy.native import filter_module
from crossfade.proxy.rundir import read_workers
from crossfade.proxy.term import TERM, write_term
from tests.backends.qdrant_writes import (
    FILTER,
    IDS,
    JSON_BODIES,
    JSON_FILTER,
    KEYS,
    SELECTED,
    Op,
    point_id,
    point_vectors,
    structs,
    wire_steps,
    wire_write,
)
from tests.proxy.capture_stage import ALL, Stage, open_stage, wait_closed
from tests.proxy.recording import GrpcCall, Recorders, RestCall
from tests.proxy.serving import wait_until
from tests.proxy.test_serve_lifecycle import sample

LISTED: list[PointId] = [*range(1, 12), "c2a1a7d0-9d2e-4b8e-9f0a-5d1f6f5b7c12"]
REST_PATHS = {
    "Delete": ("POST", "points/delete"),
    "SetPayload": ("POST", "points/payload"),
    "OverwritePayload": ("PUT", "points/payload"),
    "DeletePayload": ("POST", "points/payload/delete"),
    "ClearPayload": ("POST", "points/payload/clear"),
    "DeleteVectors": ("POST", "points/vectors/delete"),
}
CANONICAL = frozenset(IDS)


@pytest.fixture(scope="module")
def stage(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with open_stage(tmp_path_factory.mktemp("capturing"), upstream) as made:
        yield made


@pytest.fixture(autouse=True)
def looking(stage: Stage, recorded: Recorders) -> None:
    """The upstream looks into the journal, and lists twelve points in pages of five."""

    def page(after: Any) -> tuple[list[PointId], PointId | None]:
        start = 0 if after is None else LISTED.index(after)
        rest = LISTED[start + 5 :]
        return LISTED[start : start + 5], rest[0] if rest else None

    def answer_grpc(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        stage.look(call.method)
        if call.method != "/qdrant.Points/Scroll":
            return b""
        asked = qdrant.ScrollPoints.FromString(call.body)
        given = asked.offset.num or asked.offset.uuid if asked.HasField("offset") else None
        ids, after = page(given)
        points = [qdrant.RetrievedPoint(id=point_id(one)) for one in ids]
        offset = None if after is None else point_id(after)
        return qdrant.ScrollResponse(result=points, next_page_offset=offset).SerializeToString()

    def answer_rest(call: RestCall) -> Response:
        stage.look(call.path)
        result: Any = True
        if call.path.endswith("/scroll"):
            ids, after = page(orjson.loads(call.body).get("offset"))
            result = {"points": [{"id": one} for one in ids], "next_page_offset": after}
        return Response(orjson.dumps({"result": result, "status": "ok"}), media_type="application/json")

    recorded.grpc.answer, recorded.rest.answer = answer_grpc, answer_rest
    stage.forget()


def send(stage: Stage, method: str, message: Any) -> None:
    with stage.serving.channel() as channel:
        channel.unary_unary(f"/qdrant.Points/{method}")(message.SerializeToString(), timeout=20)


def check_marked_before(stage: Stage, last: str, ids: frozenset[PointId]) -> None:
    """The write itself found exactly its points marked, by a write that was open; after it they are closed."""
    look = stage.looks[-1]
    assert (look.method, look.open, look.closed) == (last, ids, frozenset())
    wait_closed(stage, list(ids))


@pytest.mark.parametrize("name", SELECTED)
def test_a_grpc_write_by_ids_is_marked_before_and_passes_byte_for_byte(
    name: str, stage: Stage, recorded: Recorders
) -> None:
    message = wire_write(name, "ids")
    send(stage, name, message)
    check_marked_before(stage, f"/qdrant.Points/{name}", CANONICAL)
    assert [call.body for call in recorded.grpc.calls] == [message.SerializeToString()]


@pytest.mark.parametrize("name", SELECTED)
def test_a_grpc_write_by_filter_is_listed_marked_and_held(name: str, stage: Stage, recorded: Recorders) -> None:
    message = wire_write(name, "filter")
    send(stage, name, message)
    check_marked_before(stage, f"/qdrant.Points/{name}", frozenset(LISTED))
    settled, *scrolls, write = recorded.grpc.calls
    assert settled.method == "/qdrant.Points/Delete"
    assert [call.method for call in scrolls] == ["/qdrant.Points/Scroll"] * 3
    condition = qdrant.Condition(has_id=qdrant.HasIdCondition(has_id=map(point_id, LISTED)))
    field = "points" if name in ("Delete", "ClearPayload") else "points_selector"
    getattr(message, field).filter.must.append(condition)
    assert type(message).FromString(write.body) == message


def test_a_grpc_batch_of_every_kind_is_marked_as_a_whole_and_later_filters_may_touch_what_earlier_steps_did(
    stage: Stage, recorded: Recorders
) -> None:
    upsert = Op(upsert=Op.PointStructList(points=[qdrant.PointStruct(id=point_id(77))]))
    update = Op(update_vectors=Op.UpdateVectors(points=[qdrant.PointVectors(id=point_id(78))]))
    batch = qdrant.UpdateBatchPoints(
        collection_name="docs", operations=[upsert, *wire_steps("filter"), update, *wire_steps("ids")]
    )
    send(stage, "UpdateBatch", batch)
    check_marked_before(stage, "/qdrant.Points/UpdateBatch", frozenset(LISTED) | CANONICAL | {77, 78})
    sent = qdrant.UpdateBatchPoints.FromString(recorded.grpc.last.body)
    (must,) = sent.operations[1].delete_deprecated.filter.must
    assert [one.num or one.uuid for one in must.has_id.has_id] == [77, *LISTED]
    assert sent.operations[0] == upsert
    assert list(sent.operations[9:]) == [update, *wire_steps("ids")]


@pytest.mark.parametrize("query", ["", "wait=true&ordering=strong&timeout=5"])
@pytest.mark.parametrize("name", SELECTED)
def test_a_rest_write_by_ids_is_marked_before_and_passes_byte_for_byte(
    name: str, query: str, stage: Stage, recorded: Recorders
) -> None:
    method, tail = REST_PATHS[name]
    body = orjson.dumps({**JSON_BODIES[name], "points": IDS}, option=orjson.OPT_INDENT_2)
    url = f"{stage.serving.rest}/collections/d%6Fcs/{tail}?{query}"
    answer = httpx.request(method, url, content=body, headers={"content-type": "application/json", "api-key": "k"})
    assert answer.status_code == 200
    assert answer.headers["x-crossfade"] == "passed; captured"
    check_marked_before(stage, f"/collections/d%6Fcs/{tail}", CANONICAL)
    (call,) = recorded.rest.calls
    assert (call.body, call.query, call.values("api-key")) == (body, query, ["k"])


@pytest.mark.parametrize("name", SELECTED)
def test_a_rest_write_by_filter_is_listed_marked_and_held(name: str, stage: Stage, recorded: Recorders) -> None:
    method, tail = REST_PATHS[name]
    body = {**JSON_BODIES[name], "filter": JSON_FILTER}
    url = f"{stage.serving.rest}/collections/docs/{tail}?wait=true"
    answer = httpx.request(method, url, json=body, headers={"api-key": "k"})
    assert answer.json()["status"] == "ok"
    check_marked_before(stage, f"/collections/docs/{tail}", frozenset(LISTED))
    settled, *scrolls, write = recorded.rest.calls
    assert (settled.path, settled.query) == ("/collections/docs/points/delete", "wait=true")
    assert [call.path for call in scrolls] == ["/collections/docs/points/scroll"] * 3
    assert all(call.values("api-key") == ["k"] for call in recorded.rest.calls)
    held = {**body, "filter": {**JSON_FILTER, "must": [{"has_id": LISTED}]}}
    assert orjson.loads(write.body) == held


def test_a_rest_batch_is_marked_as_a_whole(stage: Stage, recorded: Recorders) -> None:
    operations: list[dict[str, Any]] = [
        {"upsert": {"points": [{"id": 77, "vector": {}}]}},
        *({KEYS[name]: {**JSON_BODIES[name], "filter": JSON_FILTER}} for name in SELECTED),
        *({KEYS[name]: {**JSON_BODIES[name], "points": IDS}} for name in SELECTED),
    ]
    url = f"{stage.serving.rest}/collections/docs/points/batch"
    assert httpx.post(url, json={"operations": operations}).status_code == 200
    check_marked_before(stage, "/collections/docs/points/batch", frozenset(LISTED) | CANONICAL | {77})
    sent = orjson.loads(recorded.rest.last.body)["operations"]
    assert sent[0] == operations[0]
    assert sent[1]["delete"]["filter"]["must"] == [{"has_id": [77, *LISTED]}]
    assert sent[7:] == orjson.loads(orjson.dumps(operations[7:]))


@pytest.mark.parametrize("name", ["Upsert", "UpdateVectors"])
def test_vectors_of_the_old_model_are_marked_before_and_pass_byte_for_byte(
    name: str, stage: Stage, recorded: Recorders
) -> None:
    vector = qdrant.Vectors(vector=qdrant.Vector(dense=qdrant.DenseVector(data=[0.5] * 16)))
    points: Any = structs() if name == "Upsert" else point_vectors()
    for point in points:
        point.vectors.CopyFrom(vector)
    kind: Any = qdrant.UpsertPoints if name == "Upsert" else qdrant.UpdatePointVectors
    message = kind(collection_name="docs", points=points, update_filter=FILTER)
    with stage.serving.channel() as channel:
        call = channel.unary_unary(f"/qdrant.Points/{name}")
        call(message.SerializeToString(), metadata=[("x-embedding-model", "old")], timeout=20)
    check_marked_before(stage, f"/qdrant.Points/{name}", CANONICAL)
    assert recorded.grpc.last.body == message.SerializeToString()
    assert stage.natives() == []


def test_what_is_restored_past_the_proxy_marks_everything(stage: Stage) -> None:
    url = f"{stage.serving.rest}/collections/docs/snapshots/recover"
    assert httpx.put(url, json={"location": "http://x/y"}).status_code == 200
    (look,) = stage.looks
    assert (look.open, look.closed) == (frozenset({ALL}), frozenset())
    wait_closed(stage, [ALL])


def test_a_write_by_an_alias_is_captured_as_one_by_the_name(stage: Stage) -> None:
    stage.change(aliases=("d é",))
    try:
        stage.forget()
        message = qdrant.DeletePoints(collection_name="d é", points=wire_write("Delete", "ids").points)
        send(stage, "Delete", message)
        check_marked_before(stage, "/qdrant.Points/Delete", CANONICAL)
        stage.forget()
        url = f"{stage.serving.rest}/collections/d%20%C3%A9/points/delete"
        assert httpx.post(url, json={"points": [5]}).status_code == 200
        check_marked_before(stage, "/collections/d%20%C3%A9/points/delete", frozenset({5}))
    finally:
        stage.change(aliases=())


def test_other_collections_pass_without_a_mark_and_byte_for_byte(stage: Stage, recorded: Recorders) -> None:
    for name in (*SELECTED, "Upsert"):
        message = wire_write(name, "ids")
        message.collection_name = "elsewhere"
        send(stage, name, message)
        assert recorded.grpc.last.body == message.SerializeToString()
    url = f"{stage.serving.rest}/collections/others/points/delete"
    answer = httpx.post(url, json={"points": [1]})
    assert "x-crossfade" not in answer.headers
    assert stage.marked() == (frozenset(), frozenset())


REFUSED_REST = [
    ("DELETE", "/collections/docs", "DeleteCollection"),
    ("PATCH", "/collections/docs", "UpdateCollection"),
    ("PUT", "/collections/docs/shards", "CreateShardKey"),
    ("POST", "/collections/docs/points/replace", "Other"),
]


@pytest.mark.parametrize(("method", "path", "name"), REFUSED_REST)
def test_a_change_that_would_part_the_two_sides_is_refused_and_says_what_to_do(
    method: str, path: str, name: str, stage: Stage, recorded: Recorders
) -> None:
    answer = httpx.request(method, stage.serving.rest + path, json={})
    assert answer.status_code == 409
    error = answer.json()["status"]["error"]
    assert "collection 'docs' is being migrated to 'new'" in error
    assert name in error
    assert "complete or cancel the migration first" in error
    assert not recorded.rest.calls


def test_a_change_of_aliases_is_refused_only_where_it_names_the_collection(stage: Stage, recorded: Recorders) -> None:
    url = f"{stage.serving.rest}/collections/aliases"
    touching = {"actions": [{"create_alias": {"collection_name": "docs", "alias_name": "a"}}]}
    assert httpx.post(url, json=touching).status_code == 409
    elsewhere = {"actions": [{"create_alias": {"collection_name": "others", "alias_name": "a"}}]}
    assert httpx.post(url, json=elsewhere).status_code == 200
    with stage.serving.channel() as channel:
        call = channel.unary_unary("/qdrant.Collections/UpdateAliases")
        action = qdrant.AliasOperations(create_alias=qdrant.CreateAlias(collection_name="docs", alias_name="a"))
        with pytest.raises(grpc.RpcError) as caught:
            call(qdrant.ChangeAliases(actions=[action]).SerializeToString(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert not recorded.grpc.calls


def test_a_payload_index_is_made_on_both_sides(stage: Stage, recorded: Recorders) -> None:
    url = f"{stage.serving.rest}/collections/docs/index?wait=true"
    assert httpx.put(url, json={"field_name": "a", "field_schema": "keyword"}).status_code == 200
    assert [call.path for call in recorded.rest.calls] == ["/collections/docs/index", "/collections/docs--new/index"]
    assert len({(call.body, call.query) for call in recorded.rest.calls}) == 1
    with stage.serving.channel() as channel:
        message = qdrant.CreateFieldIndexCollection(collection_name="docs", field_name="a")
        channel.unary_unary("/qdrant.Points/CreateFieldIndex")(message.SerializeToString(), timeout=10)
    sent = [qdrant.CreateFieldIndexCollection.FromString(call.body) for call in recorded.grpc.calls]
    assert [one.collection_name for one in sent] == ["docs", "docs--new"]
    assert [one.field_name for one in sent] == ["a", "a"]


def test_the_database_s_own_refusal_of_a_filter_reaches_the_client_and_nothing_is_written(
    stage: Stage, recorded: Recorders
) -> None:
    def refuse(call: RestCall) -> Response:
        return Response(b'{"status":{"error":"Index required but not found"}}', 400, media_type="application/json")

    recorded.rest.answer = refuse
    url = f"{stage.serving.rest}/collections/docs/points/delete"
    answer = httpx.post(url, json={"filter": JSON_FILTER})
    assert answer.status_code == 400
    assert "Index required but not found; nothing was written" in answer.json()["status"]["error"]
    assert [call.path for call in recorded.rest.calls] == ["/collections/docs/points/delete"]
    assert stage.marked() == (frozenset(), frozenset())


def routed(stage: Stage) -> dict[str, float]:
    metrics = stage.serving.metrics()
    return {route: sample(metrics, "crossfade_routed_requests_total", route=route) for route in ("fast", "full")}


@pytest.mark.skipif(filter_module() is None, reason="the filter was not built here: no C compiler at installation")
def test_writes_that_need_no_more_than_a_mark_are_journalled_on_the_fast_path(stage: Stage) -> None:
    rest = f"{stage.serving.rest}/collections"

    def fast() -> None:
        for name in (*SELECTED, "Upsert", "UpdateVectors"):
            message = wire_write(name, "ids") if name in SELECTED else vectors_of(name)
            send(stage, name, message)
            message.collection_name = "elsewhere"
            send(stage, name, message)
        httpx.post(f"{rest}/docs/points/delete", json={"points": [1]})

    def full() -> None:
        send(stage, "Delete", wire_write("Delete", "filter"))
        httpx.post(f"{rest}/others/points/delete", json={"points": [1]})  # in Python's way on neither route

    fast()  # the first one opens the journal, which is the full route's
    time.sleep(1.1)  # until what other tests asked has been counted
    check_routes(stage, fast, {"fast": 2 * (len(SELECTED) + 2) + 1.0, "full": 0.0})
    check_routes(stage, full, {"fast": 0.0, "full": 1.0})


def check_routes(stage: Stage, act: Callable[[], None], grown: dict[str, float]) -> None:
    before = routed(stage)
    act()
    wait_until(lambda: {one: routed(stage)[one] - before[one] for one in before} == grown, 5, f"counted: {grown}")


def vectors_of(name: str) -> Any:
    """Two points with vectors of the old model."""
    made = qdrant.UpsertPoints if name == "Upsert" else qdrant.UpdatePointVectors
    message = made(collection_name="docs", wait=True)
    for one in (1, 2):
        vectors = qdrant.Vectors(vector=qdrant.Vector(dense=qdrant.DenseVector(data=[0.5] * 16)))
        message.points.add(id=point_id(one), vectors=vectors)
    return message


@pytest.mark.parametrize("status", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE])
def test_a_refusal_ends_a_write_and_a_failure_does_not(
    status: grpc.StatusCode, stage: Stage, recorded: Recorders
) -> None:
    def fail(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.abort(status, "no")
        raise AssertionError

    recorded.grpc.answer = fail
    with pytest.raises(grpc.RpcError):
        send(stage, "Delete", wire_write("Delete", "ids"))
    wait_closed(stage, list(CANONICAL))
    assert bool(stage.settles()) == (status is grpc.StatusCode.UNAVAILABLE)


def test_a_write_whose_client_goes_away_keeps_its_mark_until_it_must_have_ended(
    stage: Stage, recorded: Recorders
) -> None:
    gone = threading.Event()

    def linger(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        gone.wait(10)
        return b""

    recorded.grpc.answer = linger
    with stage.serving.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/qdrant.Points/Delete")(wire_write("Delete", "ids").SerializeToString(), timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_closed(stage, list(CANONICAL))
    assert stage.settles()
    gone.set()


@pytest.mark.parametrize("collection", ["docs", "elsewhere"])
def test_a_worker_has_seen_a_change_once_writes_that_began_before_it_have_ended(
    collection: str, stage: Stage, recorded: Recorders
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def linger(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        arrived.set()
        go_on.wait(10)
        return b""

    recorded.grpc.answer = linger
    message = wire_write("Delete", "ids")
    message.collection_name = collection
    threads = [threading.Thread(target=send, args=(stage, "Delete", message))]
    threads[0].start()
    assert arrived.wait(10)
    assert stage.record is not None
    before = stage.record.version
    threads.append(threading.Thread(target=stage.change, kwargs={"shadow": float(len(collection))}))
    threads[1].start()

    def seen() -> list[int]:
        stated: Any = read_workers(stage.run_dir)[stage.serving.worker_pids()[0]]
        assert stage.record is not None
        part = stated["migrations"] if collection == "docs" else stated["strange"]
        return [part[stage.record.id], stated["migrations"][stage.record.id]]

    time.sleep(0.5)
    assert seen()[0] == before
    go_on.set()
    wait_until(lambda: seen() == [before + 1] * 2, 5, "the worker has seen it")
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_write_of_unknown_end_keeps_its_mark_until_it_must_have_ended(
    transport: str, stage: Stage, recorded: Recorders
) -> None:
    def fail(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "Service internal error: timeout")
        raise AssertionError

    recorded.grpc.answer = fail
    recorded.rest.answer = lambda call: Response(b'{"status":{"error":"x"}}', 500, media_type="application/json")
    if transport == "grpc":
        with pytest.raises(grpc.RpcError) as caught:
            send(stage, "Delete", wire_write("Delete", "ids"))
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert caught.value.details() == "Service internal error: timeout"
    else:
        url = f"{stage.serving.rest}/collections/docs/points/delete"
        assert httpx.post(url, json={"points": IDS}).status_code == 500
    wait_closed(stage, list(CANONICAL))  # not open for ever
    assert stage.settles()


def test_writes_are_held_while_the_migration_is_completed_and_go_on_after(stage: Stage, recorded: Recorders) -> None:
    stage.change(completing=True)
    stage.forget()
    answers: list[int] = []
    url = f"{stage.serving.rest}/collections/docs/points/delete"

    def write() -> None:
        answers.append(httpx.post(url, json={"points": [3]}, timeout=30).status_code)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(0.6)
    assert thread.is_alive()
    assert not recorded.rest.calls
    stage.change(completing=False)
    thread.join(10)
    assert answers == [200]
    wait_closed(stage, [3])


def test_a_replica_that_is_out_of_touch_with_the_others_refuses_writes_to_what_is_migrated_and_reads_go_on(
    stage: Stage, recorded: Recorders
) -> None:
    write_term(stage.run_dir, time.monotonic() - 1)
    url = f"{stage.serving.rest}/collections/docs/points"
    try:
        wait_until(lambda: httpx.post(f"{url}/delete", json={"points": [1]}).status_code == 503, 5, "it refuses")
        stage.forget()
        recorded.rest.calls.clear()
        answer = httpx.post(f"{url}/delete", json={"points": [1]})
        assert "has not reached the migrations' store" in answer.json()["status"]["error"]
        assert not recorded.rest.calls
        assert httpx.post(f"{url}/query", json={"query": [0.1] * 24}).status_code == 200
        others = f"{stage.serving.rest}/collections/others/points/delete"
        assert httpx.post(others, json={"points": [1]}).status_code == 200
    finally:
        (stage.run_dir / TERM).unlink()
    wait_until(lambda: httpx.post(f"{url}/delete", json={"points": [1]}).status_code == 200, 5, "it writes again")
