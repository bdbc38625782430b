"""Every gRPC operation through a running Crossfade: vectors become the adapter's output, and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message

from crossfade.adapters.base import Adapter, Float32, Map
from crossfade.backends.qdrant import QdrantDialect
from tests.backends.qdrant_messages import Builder, Built, Place
from tests.backends.qdrant_tables import ANSWERS, REQUESTS
from tests.proxy.encoding_function import encode
from tests.proxy.recording import Recorders
from tests.proxy.serving import Channel, Serving
from tests.proxy.toy_adapters import NEW, OLD

ROUNDS = 12
NAMES = [operation.name for operation in QdrantDialect.operations if operation.transport == "grpc"]
WRITES = {operation.name for operation in QdrantDialect.operations if operation.writes}
DECLARED = (("x-embedding-model", "new"), ("x-extra-bin", b"\x00\xff"), ("x-twice", "b"), ("x-twice", "a"))


class OneSize(Builder):
    """Messages whose vectors all have one dimension."""

    dim = NEW

    def _rows(self, n: int) -> Float32:
        numbers = np.random.default_rng(self.rng.getrandbits(32))
        return numbers.normal(size=(n, self.dim)).astype(np.float32)


class OldSize(OneSize):
    """As the database answers."""

    dim = OLD


@pytest.fixture(scope="module")
def channel(proxy: Serving) -> Iterator[Channel]:
    with proxy.channel() as channel:
        yield channel


def call(channel: Channel, name: str, body: bytes) -> tuple[bytes, dict[str, Any]]:
    answer, call = channel.unary_unary(f"/qdrant.Points/{name}").with_call(body, metadata=DECLARED, timeout=10)
    return answer, dict(call.initial_metadata())


def adapt(place: Place, adapter: Adapter, through: Map, role: str) -> None:
    """Put into a place of a message what Crossfade is to put there."""
    if place.score is not None:
        assert adapter.calibration is not None
        if place.kind == "threshold":  # a feedback's score is the client's own
            place.replace(float(np.float32(adapter.calibration.apply(place.score))))
    elif place.text is not None:
        place.replace(through.apply(encode([place.text[0]], role)))
    else:
        assert place.rows is not None
        place.replace(through.apply(place.rows))


def take_floats(message: Message, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every list of floats in a message, which is emptied, so that what remains can be compared exactly."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in sorted(value) if field.message_type.fields_by_name["value"].message_type else ():
                yield from take_floats(value[key], f"{here}[{key}]")
        elif field.message_type is not None:
            for at, below in enumerate(value if field.is_repeated else [value]):
                yield from take_floats(below, f"{here}[{at}]")
        elif field.is_repeated and field.type == field.TYPE_FLOAT:
            yield here, np.array(value)
            del value[:]


def assert_adapted(found: bytes, expected: Any) -> int:
    """Vectors equal to 1e-6 and everything else exactly; returns how many lists of floats were compared."""
    got = type(expected).FromString(found)
    ours, theirs = list(take_floats(got)), list(take_floats(expected))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (path, vector), (_, wanted) in zip(ours, theirs, strict=True):
        assert vector.shape == wanted.shape, path
        np.testing.assert_allclose(vector, wanted, rtol=0, atol=1e-6, err_msg=path)
    assert got == expected
    return len(ours)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_a_request_reach_the_upstream_mapped_and_all_else_as_it_was(
    name: str, proxy: Serving, channel: Channel, recorded: Recorders, adapter: Adapter
) -> None:
    through, role = (adapter.document, "passage") if name in WRITES else (adapter.query, "query")
    places = 0
    for seed in range(ROUNDS):
        built = OneSize(random.Random(seed)).request(name)
        body = built.message.SerializeToString()
        _, metadata = call(channel, name, body)
        received = recorded.grpc.last
        assert received.method == f"/qdrant.Points/{name}"
        for place in built.places:
            adapt(place, adapter, through, role)
        assert_adapted(received.body, built.message)
        assert received.values("x-twice") == ["b", "a"]
        assert received.values("x-extra-bin") == [b"\x00\xff"]
        vectors = sum(place.score is None for place in built.places)
        if not built.places:
            assert received.body == body
        assert metadata.get("x-crossfade", "").startswith("adapted; model=" if vectors else "")
        places += len(built.places)
    assert len(recorded.grpc.calls) == ROUNDS
    assert (places > 0) == bool(REQUESTS[name][1])


@pytest.mark.parametrize("name", ANSWERS)
def test_vectors_of_an_answer_come_back_in_the_clients_space_and_all_else_as_it_was(
    name: str, proxy: Serving, channel: Channel, recorded: Recorders, adapter: Adapter
) -> None:
    compared = 0
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        asked = OneSize(rng).request(name)
        built = OldSize(rng).answer(name, asked.lookup or "")
        body = built.message.SerializeToString()
        recorded.grpc.answer = lambda call, context, body=body: body  # type: ignore[misc]  # bound now, on purpose
        answer, metadata = call(channel, name, asked.message.SerializeToString())
        if not asked.wants_vectors:
            assert answer == body
            continue
        mapped = [place for place in built.places if place.collection]
        for place in mapped:
            place.replace(adapter.reverse.apply(place.rows))  # type: ignore[arg-type]  # an answer holds vectors alone
        assert_adapted(answer, built.message)
        if mapped:
            assert "; results=" in metadata["x-crossfade"]
        compared += len(mapped)
    assert compared > 0


@pytest.mark.parametrize("name", NAMES)
def test_without_the_declaration_the_same_requests_pass_byte_for_byte(
    name: str, channel: Channel, recorded: Recorders
) -> None:
    for seed in range(ROUNDS):
        built: Built = OldSize(random.Random(seed)).request(name)
        if any(place.text is not None for place in built.places):
            continue  # an in-band model is a declaration
        body = built.message.SerializeToString()
        channel.unary_unary(f"/qdrant.Points/{name}")(body, timeout=10)
        assert recorded.grpc.last.body == body
