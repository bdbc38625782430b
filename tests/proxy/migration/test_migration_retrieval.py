"""Recall and agreement of the target, and the gates that follow from them and from the index's health."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crossfade.backends.index import Hits, IndexHealth
from crossfade.proxy.migration.errors import GateClosed
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Retrieval
from crossfade.proxy.migration.retrieval import QUERIES, check_retrieval, find_problems, find_recall
from crossfade.proxy.migration.verbs import Say, Verbs
from tests.proxy.migration.scenery import Scene

GOOD = Retrieval(queries=50, recall=0.97, agreement=0.4, points=9, indexed=9, building=None, broken=None)


def hits(ids: list[int], scores: list[float]) -> Hits:
    return Hits(list(ids), np.array(scores, np.float32))


@pytest.mark.parametrize(
    ("true", "found", "recall"),
    [
        (hits([1, 2], [0.9, 0.8]), hits([2, 1], [0.9, 0.8]), 1.0),
        (hits([1, 2], [0.9, 0.8]), hits([1, 3], [0.9, 0.7]), 0.5),
        (hits([1, 2], [0.9, 0.8]), hits([1, 3], [0.9, 0.8]), 1.0),  # as good as the one that is missing
        (hits([1, 2], [0.1, 0.2]), hits([1, 3], [0.1, 0.5]), 0.5),  # distances: the less the better
        (hits([1, 2], [0.1, 0.2]), hits([], []), 0.0),
    ],
)
def test_recall_counts_what_is_as_good_as_the_true_neighbours(true: Hits, found: Hits, recall: float) -> None:
    assert find_recall([true], [found]) == recall


def test_nothing_searched_has_no_recall() -> None:
    assert find_recall([hits([], [])], [hits([], [])]) is None


def test_a_poor_or_broken_index_closes_the_gate_and_one_being_built_only_where_nothing_was_measured() -> None:
    assert find_problems(None) == find_problems(GOOD) == []
    (poor,) = find_problems(GOOD.model_copy(update={"recall": 0.62}))
    assert "finds 0.62 of the true nearest 10, under 0.9" in poor
    (broken,) = find_problems(GOOD.model_copy(update={"broken": "its optimizer says no space left"}))
    assert "broken when it was verified: its optimizer says no space left" in broken
    building = GOOD.model_copy(update={"building": "its status is yellow"})
    assert find_problems(building) == []
    (unknown,) = find_problems(building.model_copy(update={"recall": None}))
    assert "still being indexed when it was verified: its status is yellow" in unknown


async def test_a_verification_measures_the_target_and_a_poor_one_cannot_be_switched_to(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    say, verbs = Say(scene.record.spec.collection, "tester"), Verbs(scene.store, scene.journal)
    async with scene.led():
        await scene.until(lambda one: one.state is State.SYNCED)
        await verbs.verify(say)
        measured = (await scene.until(lambda one: one.verification.finished_at is not None)).verification.retrieval
        assert measured is not None
        assert (measured.queries, measured.points, measured.broken) == (QUERIES, 300, None)
        assert measured.recall is not None
        assert measured.recall > 0.95
        assert measured.agreement is not None
        assert measured.agreement < 0.3  # the test's models know nothing of each other
        assert (await verbs.status(say.collection)).retrieval == measured

        honest = scene.index.search

        async def poor(collection: str, name: str, rows: np.ndarray, k: int, *, exact: bool = True) -> list[Hits]:
            answers = await honest(collection, name, rows, k, exact=True)
            return list(answers) if exact else [Hits(one.ids[:5], one.scores[:5]) for one in answers]

        monkeypatch.setattr(scene.index, "search", poor)
        await verbs.verify(say)
        await scene.until(lambda one: one.verification.id == 2 and one.verification.finished_at is not None)
        with pytest.raises(GateClosed, match=r"finds 0.45 of the true nearest 10, under 0.9; let it finish"):
            await verbs.switch(say, 10)


async def test_the_same_vectors_agree_in_all_neighbours_and_an_empty_target_measures_nothing(scene: Scene) -> None:
    spec = scene.record.spec
    itself = spec.model_copy(update={"target": spec.collection})
    found = await check_retrieval(scene.index, itself, 1)
    assert found.agreement == 1.0
    await scene.index.create_like(spec.collection, spec.target, {"": 24})
    empty = await check_retrieval(scene.index, spec, 1)
    assert (empty.queries, empty.recall, empty.agreement, empty.points) == (0, None, None, 0)


async def test_health_counts_points(scene: Scene) -> None:
    health = await scene.index.health(scene.record.spec.collection)
    assert replace(health, indexed=None) == IndexHealth(300, None)
