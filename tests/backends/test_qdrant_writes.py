"""Every write of Qdrant's API, by ids and by filter, on both transports: the points it names, and how it is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
import qdrant_client.grpc as grpc
from hypothesis import given
from hypothesis import strategies as st

from crossfade.backends.dialect import MalformedError, Operation, RequestContext, Transport
from crossfade.backends.index import PointId
from crossfade.backends.qdrant.conditions import FilterPlace
from crossfade.backends.qdrant.writing import QdrantWriting
from crossfade.backends.writing import Write
from tests.backends.qdrant_writes import (
    FILTER,
    IDS,
    JSON_BODIES,
    JSON_FILTER,
    JSON_IDS,
    JSON_POINTS,
    KEYS,
    SELECTED,
    SHARD,
    UUID,
    Op,
    point_id,
    point_vectors,
    selector,
    structs,
    wire_steps,
    wire_write,
)

CODEC = QdrantWriting()


def grpc_operation(name: str, service: str = "Points", label: str | None = None) -> Operation:
    return Operation(label or name, "grpc", "POST", f"/qdrant.{service}/{name}", True, False)


def rest_operation(name: str, method: str = "POST") -> Operation:
    return Operation(name, "rest", method, "/collections/{collection}/any", True, False)


def read_wire(name: str, message: Any) -> Write:
    write = CODEC.read_write(grpc_operation(name), f"/qdrant.Points/{name}", message.SerializeToString())
    assert write is not None
    return write


def read_json(name: str, body: Any, query: str = "") -> Write:
    operation = rest_operation(name)
    given = body if isinstance(body, bytes) else orjson.dumps(body)
    write = CODEC.read_write(operation, "/collections/d%6Fcs/any", given, RequestContext(query=query))
    assert write is not None
    return write


@pytest.mark.parametrize("name", ["Upsert", "UpdateVectors", *SELECTED])
def test_a_grpc_write_by_ids_names_exactly_these(name: str) -> None:
    write = read_wire(name, wire_write(name, "ids"))
    assert (write.effect, list(write.collections), write.waits) == ("points", ["docs"], True)
    (step,) = write.steps
    assert list(step.ids) == list(IDS)
    assert step.condition is None


@pytest.mark.parametrize("name", SELECTED)
def test_a_grpc_write_by_filter_names_a_condition(name: str) -> None:
    (step,) = read_wire(name, wire_write(name, "filter")).steps
    assert not step.ids
    assert step.condition is not None


def test_a_grpc_batch_names_the_points_of_each_operation_in_order() -> None:
    by_ids, by_filter = wire_steps("ids"), wire_steps("filter")
    writes = [
        Op(upsert=Op.PointStructList(points=structs(), update_filter=FILTER)),
        Op(update_vectors=Op.UpdateVectors(points=point_vectors())),
    ]
    batch = grpc.UpdateBatchPoints(collection_name="docs", operations=[*by_ids, *writes, *by_filter])
    write = read_wire("UpdateBatch", batch)
    assert not write.waits
    assert [list(step.ids) for step in write.steps] == [list(IDS)] * 10 + [[]] * 8
    assert [step.condition is not None for step in write.steps] == [False] * 10 + [True] * 8


def held(name: str, message: Any, ids: Sequence[PointId]) -> Any:
    """The message after every condition was held to some points."""
    body = message.SerializeToString()
    operation = grpc_operation(name)
    write = CODEC.read_write(operation, operation.path, body)
    assert write is not None
    holds = [(condition, ids) for condition in write.conditions]
    return type(message).FromString(CODEC.edit(operation, body, [], holds))


def wanted_filter() -> grpc.Filter:
    wanted = grpc.Filter()
    wanted.CopyFrom(FILTER)
    wanted.must.append(grpc.Condition(has_id=grpc.HasIdCondition(has_id=map(point_id, IDS))))
    return wanted


@pytest.mark.parametrize("name", SELECTED)
def test_a_held_grpc_filter_gains_has_id_and_nothing_else_changes(name: str) -> None:
    message = wire_write(name, "filter")
    found = held(name, message, IDS)
    field = "points" if name in ("Delete", "ClearPayload") else "points_selector"
    getattr(message, field).filter.CopyFrom(wanted_filter())
    assert found == message


def test_every_filter_of_a_grpc_batch_is_held() -> None:
    batch = grpc.UpdateBatchPoints(collection_name="docs", operations=wire_steps("filter"))
    found = held("UpdateBatch", batch, IDS)
    wanted = grpc.UpdateBatchPoints(collection_name="docs", operations=wire_steps("filter"))
    for operation in wanted.operations:
        part: Any = getattr(operation, str(operation.WhichOneof("operation")))
        if not isinstance(part, grpc.PointsSelector):
            part = part.points_selector if hasattr(part, "points_selector") else part.points
        part.filter.CopyFrom(wanted_filter())
    assert found == wanted


def test_a_filter_in_several_parts_is_held_as_their_merge() -> None:
    one = grpc.DeletePoints(collection_name="docs", points=selector("filter")).SerializeToString()
    more = grpc.DeletePoints(
        points=grpc.PointsSelector(
            filter=grpc.Filter(must=[grpc.Condition(has_vector=grpc.HasVectorCondition(has_vector="v"))])
        )
    ).SerializeToString()
    operation = grpc_operation("Delete")
    write = CODEC.read_write(operation, operation.path, one + more)
    assert write is not None
    (condition,) = write.conditions
    merged = grpc.DeletePoints.FromString(CODEC.edit(operation, one + more, [], [(condition, IDS)]))
    assert len(merged.points.filter.must) == 2
    assert len(merged.points.filter.should) == 1
    question = CODEC.ask_ids(operation, operation.path, one + more, condition, None, 10)
    asked = grpc.ScrollPoints.FromString(question.body)
    assert (len(asked.filter.must), len(asked.filter.should)) == (1, 1)


def test_points_named_in_a_way_that_is_unknown_may_be_any() -> None:
    newer = b"\x0a\x04docs\x1a\x04\x2a\x02\x08\x01"  # points: a selector with a member 5
    write = CODEC.read_write(grpc_operation("Delete"), "", newer)
    assert write is not None
    assert write.effect == "anything"
    operation = b"\x0a\x04docs\x1a\x04\x7a\x02\x08\x01"  # an operation 15
    write = CODEC.read_write(grpc_operation("UpdateBatch"), "", operation)
    assert write is not None
    assert write.effect == "anything"
    assert read_json("UpdateBatch", {"operations": [{"replace_points": {"points": [1]}}]}).effect == "anything"


def test_a_write_without_points_names_none() -> None:
    assert read_wire("Delete", grpc.DeletePoints(collection_name="docs")).steps[0].ids == ()
    assert not read_json("Delete", {}).steps[0].ids
    assert not read_json("Delete", {"points": {"x": 1}, "filter": [1]}).steps[0].ids
    assert read_json("UpdateBatch", {"operations": 3}).steps == []


@pytest.mark.parametrize("name", SELECTED)
def test_a_rest_write_by_ids_names_exactly_these(name: str) -> None:
    write = read_json(name, {**JSON_BODIES[name], "points": JSON_IDS}, "wait=true&ordering=strong")
    assert (write.effect, list(write.collections), write.waits) == ("points", ["docs"], True)
    assert [list(step.ids) for step in write.steps] == [JSON_IDS]
    assert not write.conditions


@pytest.mark.parametrize(
    "body",
    [{"points": JSON_POINTS}, {"batch": {"ids": JSON_IDS, "vectors": {"": [[1, 2]] * 3}}}, {"points": JSON_POINTS[:3]}],
)
@pytest.mark.parametrize("name", ["Upsert", "UpdateVectors"])
def test_a_rest_write_of_vectors_names_exactly_its_points(name: str, body: dict[str, Any]) -> None:
    write = read_json(name, {**body, "update_filter": JSON_FILTER})
    assert not write.waits
    assert [list(step.ids) for step in write.steps] == [JSON_IDS]
    assert not write.conditions


def test_one_uuid_and_numbers_alone_are_read_with_every_digit() -> None:
    assert list(read_json("Delete", {"points": [2**53 + 1, 2**64 - 1]}).steps[0].ids) == [2**53 + 1, 2**64 - 1]
    assert list(read_json("Delete", {"points": [UUID]}).steps[0].ids) == [UUID]


@pytest.mark.parametrize("name", SELECTED)
def test_a_rest_write_by_filter_names_a_condition(name: str) -> None:
    write = read_json(name, {**JSON_BODIES[name], "filter": JSON_FILTER})
    assert len(write.conditions) == 1
    assert not write.steps[0].ids


def test_a_rest_batch_names_the_points_of_each_operation_in_order() -> None:
    operations: list[dict[str, Any]] = [
        {"upsert": {"points": JSON_POINTS}},
        {"upsert": {"batch": {"ids": JSON_IDS, "vectors": [[1, 2]] * 3}}},
        {"update_vectors": {"points": JSON_POINTS}},
        *({KEYS[name]: {**JSON_BODIES[name], "points": JSON_IDS}} for name in SELECTED),
        *({KEYS[name]: {**JSON_BODIES[name], "filter": JSON_FILTER}} for name in SELECTED),
    ]
    write = read_json("UpdateBatch", {"operations": operations})
    assert [list(step.ids) for step in write.steps] == [JSON_IDS] * 9 + [[]] * 6
    assert [step.condition is not None for step in write.steps] == [False] * 9 + [True] * 6


MUSTS: Sequence[Any] = (
    None,
    [],
    {"key": "c", "match": {"value": "]"}},
    [{"key": "c", "match": {"value": 1}}],
    "absent",
)


@pytest.mark.parametrize("must", MUSTS, ids=["null", "empty", "one", "list", "absent"])
@pytest.mark.parametrize("others", [{}, JSON_FILTER], ids=["alone", "beside others"])
def test_a_held_rest_filter_gains_has_id_and_nothing_else_changes(must: Any, others: dict[str, Any]) -> None:
    filter_ = {**others, **({} if must == "absent" else {"must": must})}
    body = {"filter": filter_, "shard_key": ["eu"], "payload": {"digits": 1.50}}
    text = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    write = read_json("SetPayload", text)
    edited = orjson.loads(CODEC.edit(rest_operation("SetPayload"), text, [], [(write.conditions[0], JSON_IDS)]))
    kept = [] if must in (None, "absent") else [must] if isinstance(must, dict) else must
    assert edited["filter"].pop("must") == [{"has_id": JSON_IDS}, *kept]
    filter_.pop("must", None)
    assert edited == body


def test_a_page_of_a_rest_condition_is_asked_for_with_its_filter_and_shard_keys() -> None:
    text = orjson.dumps({"filter": JSON_FILTER, "shard_key": ["eu"]})
    operation = rest_operation("Delete")
    (condition,) = read_json("Delete", text).conditions
    first = CODEC.ask_ids(operation, "/collections/d%6Fcs/points/delete", text, condition, None, 50)
    assert (first.method, first.path) == ("POST", "/collections/d%6Fcs/points/scroll")
    asked = {"filter": JSON_FILTER, "shard_key": ["eu"], "limit": 50, "with_payload": False, "with_vector": False}
    assert orjson.loads(first.body) == asked
    second = CODEC.ask_ids(operation, "/collections/d%6Fcs/points/delete", text, condition, UUID, 50)
    assert orjson.loads(second.body) == {**asked, "offset": UUID}
    answer = {"result": {"points": [{"id": 7}, {"id": UUID}], "next_page_offset": 9}, "status": "ok"}
    assert CODEC.read_ids(operation, orjson.dumps(answer)) == ([7, UUID], 9)
    with pytest.raises(MalformedError):
        CODEC.read_ids(operation, b'{"result": 3}')


@pytest.mark.parametrize("after", [None, 7, UUID])
def test_a_page_of_a_grpc_condition_is_asked_for_with_its_filter_and_shard_keys(after: PointId | None) -> None:
    body = wire_write("Delete", "filter").SerializeToString()
    operation = grpc_operation("Delete")
    write = CODEC.read_write(operation, operation.path, body)
    assert write is not None
    question = CODEC.ask_ids(operation, operation.path, body, write.conditions[0], after, 300)
    assert question.path == "/qdrant.Points/Scroll"
    assert grpc.ScrollPoints.FromString(question.body) == grpc.ScrollPoints(
        collection_name="docs",
        filter=FILTER,
        offset=None if after is None else point_id(after),
        limit=300,
        with_payload=grpc.WithPayloadSelector(enable=False),
        with_vectors=grpc.WithVectorsSelector(enable=False),
        shard_key_selector=SHARD,
    )
    points = [grpc.RetrievedPoint(id=point_id(one)) for one in IDS]
    answer = grpc.ScrollResponse(next_page_offset=point_id(UUID), result=points).SerializeToString()
    assert CODEC.read_ids(operation, answer) == (list(IDS), UUID)
    assert CODEC.read_ids(operation, b"") == ([], None)


def test_what_waits_for_earlier_writes_deletes_nothing() -> None:
    body = wire_write("Delete", "filter").SerializeToString()
    asked = CODEC.ask_settled(grpc_operation("Delete"), "", body)
    assert asked is not None
    nothing = grpc.Filter(must=[grpc.Condition(has_id=grpc.HasIdCondition())])
    wanted = grpc.DeletePoints(collection_name="docs", wait=True, points=grpc.PointsSelector(filter=nothing))
    assert grpc.DeletePoints.FromString(asked.body) == wanted


CHANGES = {
    ("Points", "CreateFieldIndex"): ("both", grpc.CreateFieldIndexCollection(collection_name="docs", field_name="a")),
    ("Points", "DeleteFieldIndex"): ("both", grpc.DeleteFieldIndexCollection(collection_name="docs", field_name="a")),
    ("Collections", "UpdateCollection"): ("refused", grpc.UpdateCollection(collection_name="docs")),
    ("Collections", "DeleteCollection"): ("refused", grpc.DeleteCollection(collection_name="docs")),
    ("Collections", "CreateShardKey"): ("refused", grpc.CreateShardKeyRequest(collection_name="docs")),
    ("Collections", "UpdateCollectionClusterSetup"): (
        "anything",
        grpc.UpdateCollectionClusterSetupRequest(collection_name="docs", move_shard=grpc.MoveShard(shard_id=1)),
    ),
}


@pytest.mark.parametrize(("service", "name"), CHANGES)
def test_what_a_schema_call_means_is_told(service: str, name: str) -> None:
    effect, message = CHANGES[service, name]
    write = CODEC.read_write(grpc_operation(name, service), "", message.SerializeToString())
    assert write is not None
    assert (write.effect, list(write.collections)) == (effect, ["docs"])
    assert write.reason


def test_a_shard_key_made_by_the_cluster_call_is_refused_like_its_own_call() -> None:
    message = grpc.UpdateCollectionClusterSetupRequest(
        collection_name="docs", create_shard_key=grpc.CreateShardKey(shard_key=grpc.ShardKey(keyword="eu"))
    )
    write = CODEC.read_write(
        grpc_operation("UpdateCollectionClusterSetup", "Collections"), "", message.SerializeToString()
    )
    assert write is not None
    assert write.effect == "refused"
    assert read_json("UpdateCollectionClusterSetup", {"create_sharding_key": {"shard_key": "eu"}}).effect == "refused"
    assert read_json("UpdateCollectionClusterSetup", {"move_shard": {"shard_id": 1}}).effect == "anything"


def test_a_change_of_aliases_names_every_collection_and_alias_in_it() -> None:
    message = grpc.ChangeAliases(
        actions=[
            grpc.AliasOperations(create_alias=grpc.CreateAlias(collection_name="docs", alias_name="d")),
            grpc.AliasOperations(rename_alias=grpc.RenameAlias(old_alias_name="e", new_alias_name="f")),
            grpc.AliasOperations(delete_alias=grpc.DeleteAlias(alias_name="g")),
        ]
    )
    operation = grpc_operation("UpdateAliases", "Collections")
    write = CODEC.read_write(operation, "", message.SerializeToString())
    assert write is not None
    assert (write.effect, sorted(write.collections)) == ("refused", ["d", "docs", "e", "f", "g"])
    actions = [
        {"create_alias": {"collection_name": "docs", "alias_name": "d"}},
        {"rename_alias": {"old_alias_name": "e", "new_alias_name": "f"}},
        {"delete_alias": {"alias_name": "g"}},
    ]
    assert sorted(read_json("UpdateAliases", {"actions": actions}).collections) == ["d", "docs", "e", "f", "g"]


@pytest.mark.parametrize("name", ["RecoverSnapshot", "UploadSnapshot"])
def test_a_restored_snapshot_may_change_anything(name: str) -> None:
    write = read_json(name, b"not even JSON", "wait=false")
    assert (write.effect, write.waits) == ("anything", False)
    assert read_json(name, b"").waits


def test_what_changes_nothing_is_none() -> None:
    for name in ("CreateSnapshot", "DeleteSnapshot", "CreateCollection", "Get", "Count"):
        assert CODEC.read_write(rest_operation(name), "/collections/docs/any", b"{}") is None


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_message_are_malformed_or_name_something(transport: Transport, data: bytes) -> None:
    for name in ("Upsert", "UpdateBatch", "Delete", "SetPayload"):
        operation = grpc_operation(name) if transport == "grpc" else rest_operation(name)
        try:
            write = CODEC.read_write(operation, "/collections/docs/points", data)
        except MalformedError:
            continue
        assert write is not None
        for condition in write.conditions:
            CODEC.edit(operation, data, [], [(condition, IDS)])
            assert isinstance(condition.place, FilterPlace) or transport == "rest"


def test_numbers_of_every_length_are_read_as_ids() -> None:
    numbers = [0, 1, 127, 128, 2**49 - 1, 2**56, 2**63 - 1, 2**63, 2**64 - 1]
    named = [grpc.PointStruct(id=grpc.PointId(num=number)) for number in numbers]
    write = read_wire("Upsert", grpc.UpsertPoints(collection_name="docs", points=named))
    assert [point for step in write.steps for point in step.ids] == numbers


def test_of_an_id_that_is_said_twice_the_last_counts() -> None:
    twice = grpc.PointId(num=7).SerializeToString() + grpc.PointId(uuid=UUID).SerializeToString()
    both = b"\x0a" + bytes([len(twice)]) + twice
    body = b"\x0a\x04docs\x1a" + bytes([len(both)]) + both
    write = CODEC.read_write(grpc_operation("Upsert"), "/qdrant.Points/Upsert", body)
    assert write is not None
    assert write.steps[0].ids == [UUID]
