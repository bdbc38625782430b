"""Every row of Qdrant's REST tables, both ways: what is found, and what is changed and what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from qdrant_client.http import models

from crossfade.backends.dialect import Edit, MalformedError, Message, Operation, Role, ScoreSlot, Slot, VectorSlot
from crossfade.backends.qdrant import QdrantDialect
from tests.backends.qdrant_bodies import ANSWERS, QUERY_VARIANTS, REQUESTS, BodyBuilder, Place
from tests.backends.qdrant_messages import slot_key

DIALECT = QdrantDialect()
SEEDS = st.integers(0, 2**32)
WRITES = ("Upsert", "UpdateVectors", "UpdateBatch")
ODD = '"odd": [12345678901234567890, 1.10, 1e400, -0.0, 1E+2, {"a": 1, "a": 2}, "\\u00e9\\ud83d\\ude00"],  '
MODELS: dict[str, Any] = {
    "Upsert": models.PointInsertOperations,
    "UpdateVectors": models.UpdateVectors,
    "UpdateBatch": models.UpdateOperations,
    "Query": models.QueryRequest,
    "QueryBatch": models.QueryRequestBatch,
    "QueryGroups": models.QueryGroupsRequest,
}


def check_model(model: Any, body: dict[str, Any]) -> None:
    """Hold a body that the builder made against the client's own model, which knows no aliases."""
    proper = dict(body)
    if "with_vectors" in proper:
        proper["with_vector"] = proper.pop("with_vectors")
    if isinstance(proper.get("with_lookup"), dict) and "with_vector" in proper["with_lookup"]:
        proper["with_lookup"] = dict(proper["with_lookup"])
        proper["with_lookup"]["with_vectors"] = proper["with_lookup"].pop("with_vector")
    for request in proper.pop("searches", ()):
        check_model(models.QueryRequest, request)
    TypeAdapter(model).validate_python(proper if "searches" not in body else {**proper, "searches": []})


def open_path(key: tuple[str, str]) -> tuple[Operation, str]:
    verb, tail = key
    path = f"/collections/{quote('docs é')}/{tail}"
    operation = DIALECT.find_operation("rest", verb, f"{path}?wait=true")
    assert operation is not None
    return operation, path


def read_request(key: tuple[str, str], body: bytes) -> Message:
    operation, path = open_path(key)
    return DIALECT.read_request(operation, path, body)


def role_of(name: str) -> Role:
    return Role.DOCUMENT if name in WRITES else Role.QUERY


def write_body(body: Any, rng: random.Random) -> bytes:
    """The body as a text of random layout, with numbers in it that no float can hold."""
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 0, 2)))
    return text.replace("{", "{" + ODD, 1).encode() + rng.choice((b"", b"\n "))


def parse_exactly(text: bytes) -> Any:
    """JSON with every number's digits and every key, also a repeated one."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=lambda pairs: ("object", pairs))


def take(tree: Any, path: Sequence[str | int]) -> Any:
    """Take out the value at a path of an exactly parsed text, leaving None."""
    *way, last = path
    for step in way:
        tree = tree[step] if isinstance(step, int) else next(value for key, value in tree[1] if key == step)
    if isinstance(last, int):
        taken, tree[last] = tree[last], None
        return taken
    at = next(at for at, (key, _) in enumerate(tree[1]) if key == last)
    taken, tree[1][at] = tree[1][at][1], (last, None)
    return taken


def new_value(key: str, n: int, dim: int) -> Any:
    return np.random.default_rng(abs(hash(key)) % 2**32).normal(size=(n, dim)).astype(np.float32)


def edit_slots(slots: Sequence[Slot], dim: int) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        if isinstance(slot, ScoreSlot):
            edits.append((slot, slot.score + 0.125))
        elif isinstance(slot, VectorSlot):
            edits.append((slot, new_value(repr(slot_key(slot)), slot.rows.shape[0], dim)))
        else:
            edits.append((slot, new_value(repr(slot_key(slot)), 1, dim)))
    return edits


def same_edits(slots: Sequence[Slot]) -> list[Edit]:
    edits: list[Edit] = []
    for slot in slots:
        if isinstance(slot, ScoreSlot):
            edits.append((slot, slot.score))
        elif isinstance(slot, VectorSlot):
            edits.append((slot, slot.rows.copy()))
    return edits


def check_message(message: Message, places: Sequence[Place], body: bytes, role: Role, dim: int) -> None:
    """Slots are the places filled; equal edits change no byte; others change the vectors and nothing else."""
    assert sorted(repr(slot_key(slot)) for slot in message.slots) == sorted(repr(place.key(role)) for place in places)
    assert message.edited(same_edits(message.slots)) == body
    edited = parse_exactly(message.edited(edit_slots(message.slots, dim)))
    original = parse_exactly(body)
    for place in places:
        take(original, place.path)
        check_value(take(edited, place.path), place, role, dim)
    assert edited == original


def check_value(value: Any, place: Place, role: Role, dim: int) -> None:
    if place.score is not None:
        assert float(value) == place.score + 0.125
        return
    n = 1 if place.rows is None else place.rows.shape[0]
    numbers = np.array(value, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(numbers.reshape(n, dim), new_value(repr(place.key(role)), n, dim))


@pytest.mark.parametrize("key", REQUESTS, ids=" ".join)
@given(seed=SEEDS, dim=st.sampled_from((1, 3, 31)))
@settings(max_examples=30, deadline=None)
def test_every_vector_of_a_body_is_found_and_replaced_alone(key: tuple[str, str], seed: int, dim: int) -> None:
    rng = random.Random(seed)
    builder = BodyBuilder(rng)
    body = builder.request(key)
    name = REQUESTS[key][0]
    if name in MODELS:
        check_model(MODELS[name], body)
    text = write_body(body, rng)
    message = read_request(key, text)
    assert open_path(key)[0].name == name
    assert list(message.collections) == ["docs é"]
    assert message.wants_vectors == builder.wants_vectors
    check_message(message, builder.places, text, role_of(name), dim)


@pytest.mark.parametrize("variant", QUERY_VARIANTS)
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_every_query_variant_is_read_at_every_prefetch_level(variant: str, seed: int) -> None:
    rng = random.Random(seed)
    builder = BodyBuilder(rng, variant=variant)
    body = builder.request(("POST", "points/query"))
    check_model(models.QueryRequest, body)
    text = write_body(body, rng)
    check_message(read_request(("POST", "points/query"), text), builder.places, text, Role.QUERY, 5)


@pytest.mark.parametrize("key", ANSWERS, ids=" ".join)
@given(seed=SEEDS, dim=st.sampled_from((1, 31)))
@settings(max_examples=30, deadline=None)
def test_every_vector_of_an_answer_is_found_and_replaced_alone(key: tuple[str, str], seed: int, dim: int) -> None:
    rng = random.Random(seed)
    operation, path = open_path(key)
    asked = BodyBuilder(rng)
    request = DIALECT.read_request(operation, path, write_body(asked.request(key), rng) if key in REQUESTS else b"")
    builder = BodyBuilder(rng)
    text = write_body(builder.answer(key, asked.lookup or ""), rng)
    check_message(DIALECT.read_answer(operation, request, text), builder.places, text, Role.RESULT, dim)


@pytest.mark.parametrize("key", REQUESTS, ids=" ".join)
@given(seed=SEEDS, data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_damaged_body_is_refused_or_read_and_never_breaks_the_reader(
    key: tuple[str, str], seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    body = bytearray(write_body(BodyBuilder(rng).request(key), rng))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.sampled_from(b'{}[]",:\\ x0-e\xff\x00') | st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.sampled_from((len(body), at)))])
    try:
        json.loads(damaged.decode())
        legal = True
    except ValueError:
        legal = False
    if legal:
        message = read_request(key, damaged)
        assert message.edited(same_edits(message.slots)) == damaged
    else:
        with pytest.raises(MalformedError, match="byte"):
            read_request(key, damaged)


def test_one_point_by_get_always_answers_with_its_vectors() -> None:
    assert read_request(("GET", "points/7"), b"").wants_vectors


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"3",
        b'{"query": {"nearest": {"text": 1}}, "prefetch": 5}',
        b'{"query": [1, true], "using": 3, "score_threshold": "high"}',
        b'{"query": [1, false]}',
        b'{"query": [1, null]}',
        b'{"query": [[1, 2], [3]], "with_vector": {"a": 1}}',
        b'{"query": [[], []]}',
        b'{"query": []}',
    ],
)
def test_json_of_another_shape_gives_no_vector(body: bytes) -> None:
    message = read_request(("POST", "points/query"), body)
    assert not [slot for slot in message.slots if isinstance(slot, VectorSlot)]
    assert not message.wants_vectors


def test_numbers_that_an_edit_does_not_change_keep_their_digits() -> None:
    body = b'{"query": [0.10, 1e0, 0.1234567890123456789], "score_threshold": 0.50}'
    message = read_request(("POST", "points/query"), body)
    assert message.edited(same_edits(message.slots)) == body
    vector, score = message.slots
    assert isinstance(vector, VectorSlot)
    assert isinstance(score, ScoreSlot)
    assert b"[0.10, 1e0, 0.1234567890123456789]" in message.edited([(score, 0.25)])
    assert b'"score_threshold": 0.50' in message.edited([(vector, vector.rows + 1)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_never_written(bad: float) -> None:
    message = read_request(("POST", "points/query"), b'{"query": [1, 2], "using": "text", "score_threshold": 0.5}')
    vector, score = message.slots
    assert isinstance(vector, VectorSlot)
    assert isinstance(score, ScoreSlot)
    with pytest.raises(ValueError, match=r"collection .docs é., field .text.: 0\.5 cannot become"):
        message.edited([(score, bad)])
    with pytest.raises(ValueError, match="not finite"):
        message.edited([(vector, np.array([[1, bad]], np.float32))])
