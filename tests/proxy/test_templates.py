"""Templates: a body that fits one goes on exactly as reading, planning and splicing would have sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2
from qdrant_client import grpc as qdrant

from crossfade.adapters.base import Float32
from crossfade.adapters.linear import LinearMap
from crossfade.backends.dialect import Dialect, RequestContext, Role, Schema, ScoreSlot, VectorSlot
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.qdrant import QdrantDialect
from crossfade.proxy.exchange import Job, Plan
from crossfade.proxy.framing import frame, unframe
from crossfade.proxy.routing import Space
from crossfade.proxy.templates import Template, Templates, fill_templates, make_template, read_together

DIM, TARGET = 12, 20
MAP = LinearMap(np.random.default_rng(0).normal(size=(DIM, TARGET)).astype(np.float32), np.zeros(TARGET, np.float32))
SPACE = Space("docs", "", "old", "new", None, {"old": TARGET, "new": DIM}, {}, {})
QDRANT, MILVUS = QdrantDialect(), MilvusDialect()
CONTEXT = RequestContext(find_schema=lambda name: Schema({"vector": "float"}))


def qdrant_search(vector: Float32, limit: int, text: str, threshold: float | None) -> tuple[Dialect, str, bytes]:
    message = qdrant.SearchPoints(collection_name="docs", vector=vector, limit=limit, score_threshold=threshold)
    if text:
        match = qdrant.Match(keyword=text)
        message.filter.must.add(field=qdrant.FieldCondition(key="k", match=match))
    return QDRANT, "/qdrant.Points/Search", message.SerializeToString()


def qdrant_query(vector: Float32, limit: int, text: str, threshold: float | None) -> tuple[Dialect, str, bytes]:
    nearest = qdrant.VectorInput(dense=qdrant.DenseVector(data=vector))
    message = qdrant.QueryPoints(collection_name="docs", using=text, limit=limit, score_threshold=threshold)
    message.query.nearest.CopyFrom(nearest)
    return QDRANT, "/qdrant.Points/Query", message.SerializeToString()


def milvus_search(vector: Float32, limit: int, text: str, threshold: float | None) -> tuple[Dialect, str, bytes]:
    values = common_pb2.PlaceholderValue(tag="$0", type=101, values=[vector.tobytes()])
    group = common_pb2.PlaceholderGroup(placeholders=[values]).SerializeToString()
    message = milvus_pb2.SearchRequest(collection_name="docs", placeholder_group=group, dsl=text, nq=1)
    message.search_params.add(key="topk", value=str(limit))
    return MILVUS, "/milvus.proto.milvus.MilvusService/Search", message.SerializeToString()


Asked = Callable[[Float32, int, str, float | None], tuple[Dialect, str, bytes]]


def send(dialect: Dialect, path: str, body: bytes) -> tuple[bytes, bytes, Plan, Float32]:
    """A body as it comes and as it goes on, with its plan and mapped row."""
    operation = dialect.find_operation("grpc", "POST", path)
    assert operation is not None
    came = frame(body)
    message = dialect.read_request(operation, path, unframe(came, None, operation.name, 1 << 20), CONTEXT)
    slots = [slot for slot in message.slots if isinstance(slot, VectorSlot)]
    plan = Plan(jobs=[Job(SPACE, "new", MAP, [slot]) for slot in slots])
    plan.scores = [(slot, slot.score / 2) for slot in message.slots if isinstance(slot, ScoreSlot)]
    mapped = MAP.apply(slots[0].rows)
    edits = [*plan.scores, *plan.jobs[0].edits(mapped)]
    return came, frame(message.edited(edits)), plan, mapped


floats = st.floats(-1, 1, width=32)
vectors = st.lists(floats, min_size=DIM, max_size=DIM).map(lambda row: np.array(row, np.float32))
asks = pytest.mark.parametrize("ask", [qdrant_search, qdrant_query, milvus_search])


@asks
@settings(deadline=None)
@given(
    first=vectors,
    second=vectors,
    limit=st.integers(1, 1 << 20),
    text=st.text(max_size=200),
    threshold=st.none() | floats,
)
def test_what_fits_a_template_goes_on_as_if_it_had_been_read(
    ask: Asked, first: Float32, second: Float32, limit: int, text: str, threshold: float | None
) -> None:
    came, sent, plan, mapped = send(*ask(first, limit, text, threshold))
    template = make_template(came, sent, plan, mapped, (), b"mark", "adapted")
    if template is None:  # the floats stand in it twice by chance, as those of a vector of zeros do not
        assert came.count(first.tobytes()) != 1 or sent.count(mapped.tobytes()) != 1
        return
    other, expected, _, row = send(*ask(second, limit, text, threshold))
    assert len(other) == template.size
    assert template.fits(other)
    assert np.array_equal(read_together([other[template.start : template.end]])[0], second)
    assert fill_templates([template, template], np.concatenate([row, mapped])) == [expected, sent]


@asks
@settings(deadline=None)
@given(vector=vectors, limits=st.tuples(st.integers(1, 100), st.integers(1, 100)), text=st.text(max_size=20))
def test_what_differs_outside_the_vector_fits_only_where_it_does_not_differ(
    ask: Asked, vector: Float32, limits: tuple[int, int], text: str
) -> None:
    came, sent, plan, mapped = send(*ask(vector, limits[0], text, None))
    template = make_template(came, sent, plan, mapped, (), None, "adapted")
    other = send(*ask(vector, limits[1], text, None))[0]
    if template is not None and len(other) == template.size:
        assert template.fits(other) == (limits[0] == limits[1])


def made(vector: Float32 | None = None, limit: int = 3) -> Template | None:
    row = np.linspace(0, 1, DIM, dtype=np.float32) if vector is None else vector
    came, sent, plan, mapped = send(*qdrant_search(row, limit, "", None))
    return make_template(came, sent, plan, mapped, (), None, "adapted")


def test_no_template_is_made_where_more_than_one_query_vector_is_mapped() -> None:
    row = np.linspace(0, 1, DIM, dtype=np.float32)
    came, sent, plan, mapped = send(*qdrant_search(row, 3, "", None))
    assert make_template(came, sent, plan, mapped, (), None, "adapted") is not None
    (job,) = plan.jobs
    (slot,) = job.slots

    def changed(**fields: Any) -> Plan:
        values: dict[str, Any] = {
            "collection": "docs",
            "field": "",
            "role": Role.QUERY,
            "rows": slot.rows,
            "model": None,
            "place": None,
        }
        return Plan(jobs=[Job(SPACE, "new", MAP, [VectorSlot(**(values | fields))])])

    two = np.concatenate([mapped, mapped])
    for other, rows in (
        (Plan(jobs=[job, job]), mapped),
        (Plan(), mapped),
        (Plan(jobs=[Job(SPACE, "old", None, [slot])]), mapped),
        (Plan(jobs=[Job(SPACE, "new", MAP, [slot, slot])]), two),
        (changed(role=Role.DOCUMENT), mapped),
        (changed(rows=np.concatenate([slot.rows, slot.rows])), two),
    ):
        assert make_template(came, sent, other, rows, (), None, "adapted") is None


def test_no_template_is_made_where_the_floats_stand_in_a_body_twice_or_not_at_all() -> None:
    row = np.linspace(0, 1, DIM, dtype=np.float32)
    came, sent, plan, mapped = send(*qdrant_search(row, 3, "", None))
    assert make_template(came + row.tobytes(), sent, plan, mapped, (), None, "adapted") is None
    assert make_template(came, sent + mapped.tobytes(), plan, mapped, (), None, "adapted") is None
    assert make_template(came, sent, plan, mapped + 1, (), None, "adapted") is None
    assert make_template(b"{}", sent, plan, mapped, (), None, "adapted") is None


def test_the_last_template_of_each_size_is_found() -> None:
    kept = Templates()
    first, second = made(), made(limit=300)
    assert first is not None
    assert second is not None
    for template in (first, second):
        kept.keep(template)
    body = send(*qdrant_search(np.ones(DIM, np.float32), 300, "", None))[0]
    assert kept.find(body) is second
    assert kept.find(body + b"x") is None
    replaced = made(limit=301)
    assert replaced is not None
    kept.keep(replaced)
    assert kept.find(body) is None


def test_templates_are_given_up_where_none_is_used_and_tried_again_now_and_then() -> None:
    kept, template = Templates(), made()
    assert template is not None
    tries = 0
    for _ in range(1000):
        if kept.pay():
            kept.keep(template)
            tries += 1
    assert 64 <= tries < 130
    body = send(*qdrant_search(np.ones(DIM, np.float32), 3, "", None))[0]
    for _ in range(200):
        assert kept.find(body) is template
    assert kept.pay()
