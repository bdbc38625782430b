"""What background work asks of an index, the same of each database: Qdrant, the embedded Milvus, a real Milvus 2.3."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfade.backends.index import FieldInfo, IndexRefusedError, Point, PointId
from tests.conformance.indexes import (
    DIM,
    FIELD,
    Case,
    draw,
    open_embedded_milvus,
    open_milvus,
    open_qdrant,
    payload_of,
)


@pytest.fixture(params=["qdrant", "milvus", "milvus 2.3"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    if request.param == "milvus 2.3":
        opened = open_milvus(request.getfixturevalue("real_milvus"))
    else:
        opened = (open_qdrant if request.param == "qdrant" else open_embedded_milvus)(tmp_path / "data")
    async with opened as one:
        yield one


async def list_all(case: Case, name: str, limit: int) -> list[PointId]:
    page = await case.index.list_ids(name, None, limit)
    ids = list(page.ids)
    while page.next is not None:
        page = await case.index.list_ids(name, page.next, limit)
        assert len(page.ids) <= limit
        ids += page.ids
    return ids


async def test_ids_are_listed_in_order_page_by_page_also_where_points_come_and_go(case: Case) -> None:
    stored = await case.make(50)
    assert await list_all(case, stored.name, 7) == list(stored.ids)
    page = await case.index.list_ids(stored.name, None, 20)
    assert page.next == stored.ids[20]
    await case.index.delete(stored.name, [stored.ids[at] for at in (3, 20, 30)])
    rest = await case.index.list_ids(stored.name, page.next, 100)
    assert list(rest.ids) == [one for at, one in enumerate(stored.ids) if at >= 21 and at != 30]
    assert rest.next is None
    assert await case.index.count(stored.name) == 47


async def test_a_sample_is_repeatable_and_without_repetition(case: Case) -> None:
    stored = await case.make(30)
    first = await case.index.sample_ids(stored.name, 10, seed=1)
    assert first == await case.index.sample_ids(stored.name, 10, seed=1)
    assert first != await case.index.sample_ids(stored.name, 10, seed=2)
    assert len(set(first)) == 10
    assert set(await case.index.sample_ids(stored.name, 100, seed=1)) == set(stored.ids)


async def test_points_and_texts_come_in_the_order_asked_without_those_that_are_gone(case: Case) -> None:
    stored = await case.make(10)
    ids = [9, 4000, 2]
    found = await case.index.fetch(stored.name, ids)
    assert [point.id for point in found] == [9, 2]
    np.testing.assert_allclose([point.vectors[FIELD] for point in found], stored.rows[[9, 2]], atol=1e-6)
    assert [point.payload for point in found] == [payload_of(9), payload_of(2)]
    (lean,) = await case.index.fetch(stored.name, [9], [FIELD], payload=False)
    assert (dict(lean.payload), list(lean.vectors)) == ({}, [FIELD])
    texts = await case.index.fetch_texts(stored.name, ids, "{title}: {nested.n}")
    assert texts[1:] == [None, texts[2]]
    assert "t2" in str(texts[2])
    assert list(await case.index.fetch(stored.name, [])) == []


@pytest.mark.parametrize("text_ids", [False, True])
async def test_a_whole_collection_is_copied_into_one_made_like_it_for_other_vectors(case: Case, text_ids: bool) -> None:
    stored = await case.make(40, text_ids=text_ids)
    target = f"{stored.name}_new"
    await case.index.create_like(stored.name, target, {FIELD: 5})
    assert (await case.index.describe(target)).fields == (FieldInfo(FIELD, 5, "cosine", False),)
    assert await case.index.count(target) == 0
    points = await case.index.fetch(stored.name, stored.ids)
    new = draw(40, seed=9, dim=5)
    written = [replace(point, vectors={FIELD: new[at]}) for at, point in enumerate(points)]
    await case.index.upsert(target, written)
    await case.index.upsert(target, written[:7])  # the same again changes nothing
    assert await list_all(case, target, 11) == list(stored.ids)
    copied = await case.index.fetch(target, stored.ids)
    assert [point.payload for point in copied] == [point.payload for point in points]
    np.testing.assert_allclose([point.vectors[FIELD] for point in copied], new, atol=1e-6)
    assert await case.index.count(stored.name) == 40
    with pytest.raises(KeyError, match="no dense vector field 'absent'"):
        await case.index.create_like(stored.name, f"{stored.name}_more", {"absent": 5})


async def test_a_search_of_many_rows_equals_the_products(case: Case) -> None:
    stored = await case.make(120)
    rows = draw(70, seed=3)  # more than are searched at once
    hits = await case.index.search(stored.name, FIELD, rows, 5)
    products = rows @ stored.rows.T
    best = np.argsort(-products, axis=1)[:, :5]
    assert [list(hit.ids) for hit in hits] == best.tolist()
    np.testing.assert_allclose([hit.scores for hit in hits], np.take_along_axis(products, best, 1), atol=1e-5)


async def test_points_are_deleted_and_collections_described_and_dropped(case: Case) -> None:
    stored = await case.make(5)
    assert (await case.index.describe(stored.name)).fields == (FieldInfo(FIELD, DIM, "cosine", False),)
    assert await case.index.exists(stored.name)
    await case.index.delete(stored.name, [1, 3, 999])  # unknown ids are no error
    await case.index.delete(stored.name, [])
    await case.index.upsert(stored.name, [])
    assert [point.id for point in await case.index.fetch(stored.name, [0, 1, 2, 3, 4])] == [0, 2, 4]
    await case.index.upsert(stored.name, [Point(3, {FIELD: stored.rows[3]}, payload_of(3))])
    assert await list_all(case, stored.name, 10) == [0, 2, 3, 4]
    await case.index.drop(stored.name)
    await case.index.drop(stored.name)  # what does not exist is no error
    assert not await case.index.exists(stored.name)
    with pytest.raises(IndexRefusedError, match=rf"^collection '{stored.name}': ") as refused:
        await case.index.describe(stored.name)
    assert not refused.value.retryable
