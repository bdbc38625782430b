"""Every row of Qdrant's gRPC tables, both ways: what is found, and what is changed and what is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.backends.dialect import Edit, MalformedError, Message, Role, ScoreSlot, Slot, VectorSlot
from crossfade.backends.qdrant import QdrantDialect
from tests.backends.qdrant_messages import Builder, Built, slot_key
from tests.backends.qdrant_scramble import scramble
from tests.backends.qdrant_tables import ANSWERS, QUERY_VARIANTS, REQUESTS

WRITES = ("Upsert", "UpdateVectors", "UpdateBatch")
DIALECT = QdrantDialect()
SEEDS = st.integers(0, 2**32)


def role_of(name: str) -> Role:
    return Role.DOCUMENT if name in WRITES else Role.QUERY


def read_request(name: str, body: bytes) -> Message:
    operation = DIALECT.find_operation("grpc", "POST", f"/qdrant.Points/{name}")
    assert operation is not None
    return DIALECT.read_request(operation, operation.path, body)


def read_answer(name: str, request: Message, body: bytes) -> Message:
    operation = DIALECT.find_operation("grpc", "POST", f"/qdrant.Points/{name}")
    assert operation is not None
    return DIALECT.read_answer(operation, request, body)


def check_slots(slots: Sequence[Slot], built: Built, role: Role) -> None:
    assert sorted(map(repr, map(slot_key, slots))) == sorted(repr(place.key(role)) for place in built.places)


def same_edits(slots: Sequence[Slot]) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        if isinstance(slot, VectorSlot):
            edits.append((slot, slot.rows.copy()))
        elif isinstance(slot, ScoreSlot):
            edits.append((slot, slot.score))
    return edits


def new_value(key: str, n: int, dim: int) -> Any:
    """Rows or a score that follow from what stood there, so that message and slots can be changed apart."""
    numbers = np.random.default_rng(abs(hash(key)) % 2**32)
    return numbers.normal(size=(n, dim)).astype(np.float32)


def edit_slots(slots: Sequence[Slot], role: Role, dim: int) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        key = repr(slot_key(slot))
        if isinstance(slot, ScoreSlot):
            edits.append((slot, float(np.float32(slot.score + 0.125))))
        elif isinstance(slot, VectorSlot):
            edits.append((slot, new_value(key, slot.rows.shape[0], dim)))
        else:
            edits.append((slot, new_value(key, 1, dim)))
    return edits


def edit_places(built: Built, role: Role, dim: int) -> None:
    for place in built.places:
        if place.score is not None:
            place.replace(float(np.float32(place.score + 0.125)))
        else:
            n = 1 if place.rows is None else place.rows.shape[0]
            place.replace(new_value(repr(place.key(role)), n, dim))


def check_message(message: Message, built: Built, body: bytes, role: Role, dim: int) -> None:
    """Slots are the places filled; equal edits change no byte; others change the vectors and nothing else."""
    check_slots(message.slots, built, role)
    assert message.edited(same_edits(message.slots)) == body
    edited = type(built.message).FromString(message.edited(edit_slots(message.slots, role, dim)))
    expected = type(built.message).FromString(body)
    assert expected == built.message
    edit_places(built, role, dim)
    assert edited == built.message


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS, dim=st.sampled_from((1, 3, 7, 31, 32, 300, 5000)))
@settings(max_examples=30, deadline=None)
def test_every_vector_of_a_request_is_found_and_replaced_alone(name: str, seed: int, dim: int) -> None:
    built = Builder(random.Random(seed)).request(name)
    body = built.message.SerializeToString()
    message = read_request(name, body)
    assert list(message.collections) == ["docs é"]
    assert message.wants_vectors == built.wants_vectors
    check_message(message, built, body, role_of(name), dim)


@pytest.mark.parametrize("variant", QUERY_VARIANTS)
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_every_query_variant_is_read_at_every_prefetch_level(variant: str, seed: int) -> None:
    built = Builder(random.Random(seed), variant=variant).request("Query")
    body = built.message.SerializeToString()
    check_message(read_request("Query", body), built, body, Role.QUERY, 5)


@pytest.mark.parametrize("name", ANSWERS)
@given(seed=SEEDS, dim=st.sampled_from((1, 31, 300)))
@settings(max_examples=30, deadline=None)
def test_every_vector_of_an_answer_is_found_and_replaced_alone(name: str, seed: int, dim: int) -> None:
    rng = random.Random(seed)
    asked = Builder(rng).request(name)
    request = read_request(name, asked.message.SerializeToString())
    built = Builder(rng).answer(name, asked.lookup or "")
    body = built.message.SerializeToString()
    check_message(read_answer(name, request, body), built, body, Role.RESULT, dim)


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_legal_bytes_that_no_encoder_writes_are_read_alike(name: str, seed: int) -> None:
    rng = random.Random(seed)
    built = Builder(rng).request(name)
    body = scramble(built.message, rng)
    built.message.DiscardUnknownFields()
    message = read_request(name, body)
    check_slots(message.slots, built, role_of(name))
    assert message.edited(same_edits(message.slots)) == body
    edited = type(built.message).FromString(message.edited(edit_slots(message.slots, role_of(name), 9)))
    edit_places(built, role_of(name), 9)
    edited.DiscardUnknownFields()
    assert edited == built.message


@pytest.mark.parametrize("name", REQUESTS)
@given(seed=SEEDS, data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_damaged_request_is_refused_or_read_and_never_breaks_the_reader(
    name: str, seed: int, data: st.DataObject
) -> None:
    built = Builder(random.Random(seed)).request(name)
    body = bytearray(built.message.SerializeToString())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.sampled_from((len(body), at)))])
    try:
        type(built.message).FromString(damaged)
        legal = True
    except Exception:  # the runtime's DecodeError, whose class differs between its implementations
        legal = False
    try:
        message = read_request(name, damaged)
    except MalformedError:
        assert not legal
    else:
        assert message.edited(same_edits(message.slots)) == damaged


def test_truncated_bytes_are_refused_with_offset_and_path() -> None:
    built = Builder(random.Random(5)).request("Upsert")
    body = built.message.SerializeToString()
    with pytest.raises(MalformedError, match=r"^UpsertPoints.*: not a valid protobuf message at byte \d+: "):
        read_request("Upsert", body[:-1])
