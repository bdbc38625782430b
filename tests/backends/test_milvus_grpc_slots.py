"""Every row of Milvus's gRPC tables, both ways: what is found, and what is changed and what is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import (
    Edit,
    MalformedError,
    Message,
    RequestContext,
    Schema,
    ScoreSlot,
    Slot,
    TextSlot,
    VectorSlot,
)
from crossfade.backends.milvus import MilvusDialect
from tests.backends.milvus_messages import ANSWERS, REQUESTS, Builder, same_params
from tests.backends.qdrant_scramble import scramble

DIALECT = MilvusDialect()
SEEDS = st.integers(0, 2**32)
SERVICE = "/milvus.proto.milvus.MilvusService"


def read_request(name: str, body: bytes, context: RequestContext | None = None) -> Message:
    operation = DIALECT.find_operation("grpc", "POST", f"{SERVICE}/{name}")
    assert operation is not None
    return DIALECT.read_request(operation, operation.path, body, context or RequestContext())


def read_answer(name: str, request: Message, body: bytes) -> Message:
    operation = DIALECT.find_operation("grpc", "POST", f"{SERVICE}/{name}")
    assert operation is not None
    return DIALECT.read_answer(operation, request, body)


def slot_key(slot: Slot) -> Any:
    if isinstance(slot, ScoreSlot):
        return (slot.collection, slot.field, "score", slot.score)
    assert isinstance(slot, VectorSlot)
    return (slot.collection, slot.field, slot.role.value, [slot.rows.tolist(), slot.model])


def check_slots(slots: Sequence[Slot], built: Builder) -> None:
    assert sorted(repr(slot_key(slot)) for slot in slots) == sorted(repr(place.key) for place in built.places)


def same_edits(slots: Sequence[Slot]) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        if isinstance(slot, VectorSlot):
            edits.append((slot, slot.rows.copy()))
        elif isinstance(slot, ScoreSlot):
            edits.append((slot, slot.score))
    return edits


def new_rows(key: object, shape: tuple[int, int], dim: int) -> Any:
    """Whole numbers, which every form holds, that follow from what stood there."""
    return np.random.default_rng(abs(hash(repr(key))) % 2**32).integers(-100, 100, (shape[0], dim)).astype(np.float32)


def edit_slots(slots: Sequence[Slot], dim: int) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        if isinstance(slot, ScoreSlot):
            edits.append((slot, slot.score + 0.125))
        elif isinstance(slot, VectorSlot):
            edits.append((slot, new_rows(slot_key(slot), (len(slot.rows), 0), dim)))
    return edits


def edit_places(built: Builder, dim: int) -> None:
    for place in built.places:
        score = place.key[3]
        place.replace(score + 0.125 if place.shape is None else new_rows(place.key, place.shape, dim))


def check_message(message: Message, built: Builder, sent: Any, body: bytes, dim: int, *, exact: bool = True) -> None:
    """Slots are the places filled; equal edits change no byte; others change the vectors and nothing else."""
    check_slots(message.slots, built)
    assert message.edited(same_edits(message.slots)) == body
    edited = type(sent).FromString(message.edited(edit_slots(message.slots, dim)))
    edit_places(built, dim)
    same_params(edited)
    same_params(sent)
    if not exact:
        edited.DiscardUnknownFields()
    assert edited == sent


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS, dim=st.sampled_from((1, 3, 31, 32, 300, 5000)))
@settings(max_examples=40, deadline=None)
def test_every_vector_of_a_request_is_found_and_replaced_alone(name: str, seed: int, dim: int) -> None:
    built = Builder(random.Random(seed))
    sent = built.request(name)
    body = sent.SerializeToString()
    message = read_request(name, body)
    assert list(message.collections) == [built.name]
    assert message.wants_vectors == built.wants_vectors
    check_message(message, built, sent, body, dim)


@pytest.mark.parametrize("name", ANSWERS)
@given(seed=SEEDS, dim=st.sampled_from((1, 31, 300)))
@settings(max_examples=40, deadline=None)
def test_every_vector_of_an_answer_is_found_and_replaced_alone(name: str, seed: int, dim: int) -> None:
    rng = random.Random(seed)
    asked = Builder(rng)
    request = read_request(name, asked.request(name).SerializeToString())
    built = Builder(rng, database=asked.database)
    sent = built.answer(name)
    body = sent.SerializeToString()
    check_message(read_answer(name, request, body), built, sent, body, dim)


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_legal_bytes_that_no_encoder_writes_are_read_alike(name: str, seed: int) -> None:
    rng = random.Random(seed)
    built = Builder(rng)
    sent = built.request(name)
    body = scramble(sent, rng)
    check_message(read_request(name, body), built, sent, body, 9, exact=False)


def is_legal(name: str, body: bytes) -> bool:
    """Whether the official runtime reads a request and the placeholder groups in it."""
    try:
        message = REQUESTS[name][0].FromString(body)
        for search in (message, *getattr(message, "sub_reqs", ()), *getattr(message, "requests", ())):
            common_pb2.PlaceholderGroup.FromString(getattr(search, "placeholder_group", b""))
    except Exception:  # the runtime's DecodeError, whose class differs between its implementations
        return False
    return True


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS, data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_request_is_refused_or_read_and_never_breaks_the_reader(
    name: str, seed: int, data: st.DataObject
) -> None:
    sent = Builder(random.Random(seed)).request(name)
    body = bytearray(sent.SerializeToString())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.sampled_from((len(body), at)))])
    try:
        message = read_request(name, damaged)
    except MalformedError:
        assert not is_legal(name, damaged)
    else:
        slots = [slot for slot in message.slots if not isinstance(slot, VectorSlot) or np.isfinite(slot.rows).all()]
        assert message.edited(same_edits(slots)) == damaged


def search(kind: int, values: list[bytes], **params: str) -> bytes:
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=kind, values=values)
    request = milvus_pb2.SearchRequest(collection_name="docs", placeholder_group=group.SerializeToString())
    for key, value in params.items():
        request.search_params.add(key=key, value=value)
    return bytes(request.SerializeToString())


def knowing(**vectors: str) -> RequestContext:
    return RequestContext(find_schema={"docs": Schema(vectors)}.get)


def test_a_search_that_names_no_field_asks_the_only_vector_field_of_the_schema() -> None:
    body = search(101, [np.ones(4, "<f4").tobytes()])
    unknown = read_request("Search", body)
    assert unknown.unsettled
    assert unknown.slots[0].field is None
    known = read_request("Search", body, knowing(emb="float"))
    assert not known.unsettled
    assert known.slots[0].field == "emb"
    assert read_request("Search", body, knowing(one="float", two="float")).slots[0].field is None


def test_a_text_is_a_slot_only_where_its_field_holds_dense_vectors() -> None:
    body = search(21, ["où est".encode(), b"two"], anns_field="dense", embedding_model="e5-small")
    assert read_request("Search", body).unsettled
    assert read_request("Search", body, knowing(other="float")).slots == []
    message = read_request("Search", body, knowing(dense="float"))
    texts = [slot for slot in message.slots if isinstance(slot, TextSlot)]
    assert [(slot.text, slot.model, slot.field) for slot in texts] == [
        ("où est", "e5-small", "dense"),
        ("two", "e5-small", "dense"),
    ]
    rows = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    edited = milvus_pb2.SearchRequest.FromString(message.edited([(t, r) for t, r in zip(texts, rows, strict=True)]))
    group = common_pb2.PlaceholderGroup.FromString(edited.placeholder_group)
    assert group.placeholders[0].type == common_pb2.PlaceholderType.FloatVector
    assert [np.frombuffer(value, "<f4").tolist() for value in group.placeholders[0].values] == [[0, 1, 2], [3, 4, 5]]


def test_the_database_of_the_metadata_counts_where_the_message_names_none() -> None:
    body = search(101, [np.ones(4, "<f4").tobytes()])
    assert read_request("Search", body, RequestContext({"dbname": "tenant"})).collections == ("tenant/docs",)
    assert read_request("Search", body, RequestContext({"dbname": "default"})).collections == ("docs",)


def test_truncated_bytes_are_refused_with_offset_and_path() -> None:
    body = search(101, [np.ones(4, "<f4").tobytes()])
    with pytest.raises(MalformedError, match=r"^SearchRequest.*: not a valid protobuf message at byte \d+: "):
        read_request("Search", body[:-1])
