"""Requests that are led to another collection: every name that counts is changed, and nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import qdrant_client.grpc as grpc
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, snapshots_service_pb2

from crossfade.backends.dialect import MalformedError, Operation
from crossfade.backends.qdrant import QdrantDialect
from crossfade.backends.qdrant.hits import TABLE as HITS
from crossfade.backends.qdrant.reading import QdrantReading
from crossfade.backends.qdrant.retarget import TABLE
from crossfade.backends.qdrant.searching import TABLE as SEARCHES
from tests.backends.qdrant_bodies import REQUESTS as BODIES
from tests.backends.qdrant_bodies import BodyBuilder
from tests.backends.qdrant_messages import Builder
from tests.backends.qdrant_scramble import scramble
from tests.backends.qdrant_tables import REQUESTS
from tests.backends.test_qdrant_schema import describe, find_descriptor

DIALECT, READING = QdrantDialect(), QdrantReading()
OLD, NEW = "docs é", "docs é--e5/small"
NAMES = {OLD: NEW}
SERVICES = {
    f"/{service.full_name}/{method.name}": method.input_type
    for module in (points_service_pb2, collections_service_pb2, snapshots_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
UNNAMED = {"List", "ListAliases", "CreateFull", "ListFull", "DeleteFull"}
KEYS = {"lookup_from": "collection_name", "with_lookup": "collection"}
SEEDS = st.integers(0, 2**32)


def operation_of(transport: Any, method: str, path: str) -> Operation:
    found = DIALECT.find_operation(transport, method, path) or READING.find_other(transport, method, path)
    assert found is not None, path
    return found


@pytest.mark.parametrize("table", [TABLE, SEARCHES, HITS], ids=["names", "searches", "hits"])
def test_fields_have_the_numbers_and_types_of_the_descriptor(table: dict[str, str]) -> None:
    for message, fields in table.items():
        described = {describe(field) for field in find_descriptor(message).fields if field.name in fields}
        assert set(fields.split()) <= described, message


def test_every_rpc_that_names_a_collection_is_an_operation_or_one_of_the_others() -> None:
    for path, message in SERVICES.items():
        names = "collection_name" in message.fields_by_name or path.endswith("UpdateAliases")
        known = DIALECT.find_operation("grpc", "POST", path) or READING.find_other("grpc", "POST", path)
        assert (known is not None) == names, path


def test_no_field_that_names_a_collection_is_left_out_of_the_table() -> None:
    def walk(descriptor: Any, seen: set[str]) -> None:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        listed = TABLE.get(descriptor.full_name.removeprefix("qdrant."), TABLE["GetPoints"])
        for field in descriptor.fields:
            if field.name in ("collection_name", "lookup_from", "with_lookup", "create_alias", "actions"):
                assert f"{field.name}={field.number}:" in listed, field.full_name
            if field.message_type is not None:
                walk(field.message_type, seen)

    for path, message in SERVICES.items():
        if path.startswith("/qdrant.Points/") or path.endswith("UpdateAliases"):
            walk(message, set())


BATCHED = ("prefetch", "query_points", "recommend_points", "discover_points", "search_points")


def point_elsewhere(message: Any, rng: random.Random) -> None:
    """Name collections wherever the message can, in some of the places the one that is renamed."""
    for field in message.DESCRIPTOR.fields:
        if field.name in ("lookup_from", "with_lookup"):
            below = getattr(message, field.name)
            setattr(
                below, "collection_name" if field.name == "lookup_from" else "collection", rng.choice([OLD, "else"])
            )
    for name in BATCHED:
        for below in getattr(message, name, ()):
            if name != "prefetch":
                below.collection_name = rng.choice([OLD, "else", ""])
            point_elsewhere(below, rng)


def rename(message: Any) -> None:
    """The same message as it shall be: what `retarget` has to agree with."""
    for field in message.DESCRIPTOR.fields:
        if field.name in ("lookup_from", "with_lookup") and message.HasField(field.name):
            below, key = (
                getattr(message, field.name),
                "collection_name" if field.name == "lookup_from" else "collection",
            )
            if getattr(below, key) == OLD:
                setattr(below, key, NEW)
    for name in BATCHED:
        for below in getattr(message, name, ()):
            if name != "prefetch" and below.collection_name == OLD:
                below.collection_name = NEW
            rename(below)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(REQUESTS)), seed=SEEDS)
def test_a_grpc_request_names_the_other_collection_and_is_otherwise_the_same(name: str, seed: int) -> None:
    rng = random.Random(seed)
    built = Builder(rng, OLD).request(name)
    point_elsewhere(built.message, rng)
    body = scramble(built.message, rng)
    path, moved = READING.retarget(operation_of("grpc", "POST", f"/qdrant.Points/{name}"), "/p", body, NAMES)
    expected = type(built.message)()
    expected.ParseFromString(body)
    assert expected.collection_name == OLD
    expected.collection_name = NEW
    rename(expected)
    found = type(built.message)()
    found.ParseFromString(moved)
    assert path == "/p"
    assert found == expected
    assert READING.retarget(operation_of("grpc", "POST", f"/qdrant.Points/{name}"), "/p", body, {"x": "y"})[1] == body


@pytest.mark.parametrize("path", sorted(SERVICES))
def test_every_other_grpc_method_names_the_other_collection_too(path: str) -> None:
    if path.rpartition("/")[2] in UNNAMED:
        return
    message = getattr(grpc, SERVICES[path].name)()
    operation = operation_of("grpc", "POST", path)
    if path.endswith("UpdateAliases"):
        message.actions.add().create_alias.collection_name = OLD
        message.actions.add().rename_alias.old_alias_name = OLD
        moved = type(message).FromString(READING.retarget(operation, path, message.SerializeToString(), NAMES)[1])
        message.actions[0].create_alias.collection_name = NEW
        assert moved == message
        return
    message.collection_name = OLD
    body = message.SerializeToString() + b"\xf8\x7d\x96\x01"
    if path in {operation.path for operation in READING.others}:
        assert READING.find_collection(operation, path, body) == OLD
    message.collection_name = NEW
    assert READING.retarget(operation, path, body, NAMES)[1] == message.SerializeToString() + b"\xf8\x7d\x96\x01"


@example(row=("POST", "points/search/batch"), seed=0)
@settings(max_examples=60, deadline=None)
@given(row=st.sampled_from(sorted(BODIES)), seed=SEEDS)
def test_a_rest_request_names_the_other_collection_and_keeps_every_byte_else(row: tuple[str, str], seed: int) -> None:
    verb, tail = row
    rng = random.Random(seed)
    body = BodyBuilder(rng).request(row)
    for level in [body, *body.get("searches", [])]:
        level["lookup_from"] = {"collection": rng.choice([OLD, "else"]), "vector": OLD}
        level["with_lookup"] = rng.choice([OLD, {"collection": OLD, "with_payload": True}, None])
    text = json.dumps(body, indent=1).encode()
    operation = operation_of("rest", verb, f"/collections/docs%20%C3%A9/{tail}")
    path, moved = READING.retarget(operation, f"/collections/docs%20%C3%A9/{tail}", text, NAMES)
    assert path == f"/collections/docs%20%C3%A9--e5%2Fsmall/{tail}"
    looks_up = operation.name.removesuffix("Batch").removesuffix("Groups") in ("Query", "Recommend", "Discover")
    if not looks_up and operation.name != "SearchGroups":
        assert moved == text
        return
    for level in [body, *body.get("searches", [])]:
        if level["lookup_from"]["collection"] == OLD:
            level["lookup_from"]["collection"] = NEW
        if level["with_lookup"] == OLD:
            level["with_lookup"] = NEW
        elif level["with_lookup"]:
            level["with_lookup"]["collection"] = NEW
    assert json.loads(moved) == body
    assert READING.retarget(operation, f"/collections/x/{tail}", text, {"x": "y"})[1] == text


@pytest.mark.parametrize(
    ("verb", "path", "name"),
    [
        ("POST", "/collections/docs/points/count", "Count"),
        ("DELETE", "/collections/docs", "DeleteCollection"),
        ("PUT", "/collections/docs/index", "CreateFieldIndex"),
        ("POST", "/collections/docs/points/payload/clear", "ClearPayload"),
        ("GET", "/collections/docs/anything/new", "Other"),
        ("POST", "/collections/aliases", "UpdateAliases"),
    ],
)
def test_rest_paths_below_a_collection_are_known_by_name_or_as_something_else(verb: str, path: str, name: str) -> None:
    operation = operation_of("rest", verb, path)
    assert operation.name == name
    moved, _ = READING.retarget(operation, path, b"", {"docs": "new"})
    assert moved == path.replace("docs", "new")
    named = READING.find_collection(operation, path, b"")
    assert named == (None if name == "UpdateAliases" else "docs")


def test_paths_that_name_no_collection_are_none_of_the_others() -> None:
    assert READING.find_other("rest", "GET", "/collections") is None
    assert READING.find_other("rest", "GET", "/metrics") is None
    assert READING.find_other("grpc", "POST", "/qdrant.Collections/List") is None


def test_an_alias_is_made_for_the_other_collection() -> None:
    text = b'{"actions": [{"create_alias": {"collection_name": "docs", "alias_name": "docs"}}]}'
    operation = operation_of("rest", "POST", "/collections/aliases")
    path, moved = READING.retarget(operation, operation.path, text, {"docs": "new"})
    assert (path, moved) == (operation.path, text.replace(b'"docs"', b'"new"', 1))


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(MalformedError):
        READING.retarget(operation_of("grpc", "POST", "/qdrant.Points/Count"), "/p", b"\x0a\xff", NAMES)
