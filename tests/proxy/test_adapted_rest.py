"""Every REST operation through a running Crossfade: vectors become the adapter's output, all else keeps its digits."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from starlette.responses import Response

from crossfade.adapters.base import Adapter, Float32, Map
from crossfade.backends.qdrant import QdrantDialect
from tests.backends.qdrant_bodies import ANSWERS, REQUESTS, BodyBuilder, Place
from tests.backends.test_qdrant_rest_slots import parse_exactly, take, write_body
from tests.proxy.encoding_function import encode
from tests.proxy.recording import Recorders
from tests.proxy.serving import Serving
from tests.proxy.toy_adapters import NEW, OLD

ROUNDS = 8
COLLECTION = quote("docs é")
DECLARED = {"x-embedding-model": "new", "content-type": "application/json"}
WRITES = {operation.name for operation in QdrantDialect.operations if operation.writes}


class OneSize(random.Random):
    """Chances as ever, but every vector has one dimension."""

    dim = NEW

    def choice(self, options: Any) -> Any:
        return self.dim if options == (1, 3, 40) else super().choice(options)


class OldSize(OneSize):
    dim = OLD


@pytest.fixture(scope="module")
def client(proxy: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{proxy.rest}/collections/{COLLECTION}") as client:
        yield client


def rows_of(value: Any) -> Float32:
    """Rows (n, dim) of a parsed vector, whose numbers are still text."""
    nested = value if isinstance(value[0], list) else [value]
    return np.array([[float(number) for number in row] for row in nested])


def expected_at(place: Place, adapter: Adapter, through: Map, role: str) -> Any:
    if place.text is not None:
        return through.apply(encode([place.text[0]], role))
    assert place.rows is not None
    return through.apply(place.rows)


def assert_adapted(found: bytes, sent: bytes, places: list[Place], adapter: Adapter, through: Map, role: str) -> None:
    ours, theirs = parse_exactly(found), parse_exactly(sent)
    for place in places:
        value = take(ours, place.path)
        take(theirs, place.path)
        if place.score is not None:
            assert adapter.calibration is not None
            moved = place.kind == "threshold"  # a feedback's score is the client's own
            assert float(value) == (adapter.calibration.apply(place.score) if moved else place.score)
        else:
            wanted = expected_at(place, adapter, through, role)
            np.testing.assert_allclose(rows_of(value), wanted, rtol=0, atol=1e-6, err_msg=str(place.path))
    assert ours == theirs


def test_the_tables_have_every_operation() -> None:
    operations = {(one.name, one.writes) for one in QdrantDialect.operations if one.transport == "rest"}
    listed = {name for name, _ in REQUESTS.values()} | {"Get"}
    assert {name for name, _ in operations} == listed


@pytest.mark.parametrize("key", REQUESTS, ids=" ".join)
def test_vectors_of_a_request_reach_the_upstream_mapped_and_all_else_as_it_was(
    key: tuple[str, str], client: httpx.Client, recorded: Recorders, adapter: Adapter
) -> None:
    name = REQUESTS[key][0]
    through, role = (adapter.document, "passage") if name in WRITES else (adapter.query, "query")
    for seed in range(ROUNDS):
        builder = BodyBuilder(OneSize(seed))
        body = write_body(builder.request(key), random.Random(seed))
        answer = client.request(key[0], f"/{key[1]}?wait=true&x=%7E", content=body, headers=DECLARED)
        received = recorded.rest.last
        assert (received.method, received.path, received.query) == (
            key[0],
            f"/collections/{COLLECTION}/{key[1]}",
            "wait=true&x=%7E",
        )
        assert_adapted(received.body, body, builder.places, adapter, through, role)
        if not builder.places:
            assert received.body == body
        vectors = any(place.score is None for place in builder.places)
        assert answer.headers.get("x-crossfade", "").startswith("adapted; model=" if vectors else "")
        assert answer.json() == {"result": True, "status": "ok", "time": 0.0}


@pytest.mark.parametrize("key", ANSWERS, ids=" ".join)
def test_vectors_of_an_answer_come_back_in_the_clients_space_and_all_else_as_it_was(
    key: tuple[str, str], client: httpx.Client, recorded: Recorders, adapter: Adapter
) -> None:
    compared = 0
    for seed in range(ROUNDS):
        asked = BodyBuilder(OneSize(seed))
        body = json.dumps(asked.request(key)).encode() if key in REQUESTS else b""
        builder = BodyBuilder(OldSize(seed))
        text = write_body(builder.answer(key, asked.lookup or ""), random.Random(seed))
        recorded.rest.answer = lambda call, text=text: Response(text, 200, media_type="application/json")  # type: ignore[misc]  # bound now, on purpose
        answer = client.request(key[0], f"/{key[1]}", content=body, headers=DECLARED)
        if not asked.wants_vectors and key in REQUESTS:
            assert answer.content == text
            continue
        places = [copy.copy(place) for place in builder.places if place.collection]
        assert_adapted(answer.content, text, places, adapter, adapter.reverse, "query")
        if places:
            assert "; results=" in answer.headers["x-crossfade"]
        compared += len(places)
    assert compared > 0


@pytest.mark.parametrize("key", REQUESTS, ids=" ".join)
def test_undeclared_requests_pass_byte_for_byte(
    key: tuple[str, str], client: httpx.Client, recorded: Recorders
) -> None:
    for seed in range(ROUNDS):
        builder = BodyBuilder(OldSize(seed))
        body = write_body(builder.request(key), random.Random(seed))
        if any(place.text is not None for place in builder.places):
            continue  # an in-band model is a declaration
        client.request(key[0], f"/{key[1]}", content=body, headers={"content-type": "application/json"})
        assert recorded.rest.last.body == body
