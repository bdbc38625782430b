"""Documents that observed queries find are re-encoded first, each once, also after an end half way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.observe import QueryStatistics
from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.backends.index import Hits, PointId
from crossfade.proxy.migration.conduct import Tools
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.popular import Ordering, find_popular, popular_path, rank_found, read_popular
from crossfade.proxy.observing import Key, dump_statistics
from tests.proxy.encoding_function import DIM, encode_one
from tests.proxy.migration.chaos_runs import run_chaos
from tests.proxy.migration.controller_child import DRAWN
from tests.proxy.migration.scenery import Scene, find_differences, id_of
from tests.proxy.migration.test_migration_refit import fitted, old_of, write_old_vectors

COUNT = 300


@dataclass
class OrderedScene(Scene):
    """A migration that is to go by popularity."""

    ordering: Ordering | None = None

    def tools(self) -> Tools:
        return replace(super().tools(), ordering=lambda _: self.ordering)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was fitted on enough pairs; the tests take copies."""
    fitted(place := tmp_path_factory.mktemp("learnt") / "adapter", 400)
    return place


async def ordered_scene(scene: Scene, folder: Path, learnt: Path, lead: int, observed: int = 200) -> OrderedScene:
    """Clients have asked for what stands near the texts 200 to 219."""
    shutil.copytree(learnt, folder / "adapter")
    await write_old_vectors(scene, range(COUNT))
    scene.samples = folder / "migrations"
    near = np.stack([encode_one(f"text {at}", "passage") for at in range(200, 220)])
    rows = near[np.random.default_rng(0).integers(0, 20, observed)]
    seen = QueryStatistics.empty(DIM, spread=True).add(rows)
    key = Key(scene.record.spec.collection, "", "new")
    (folder / "queries-1.safetensors").write_bytes(dump_statistics({key: seen}))
    return OrderedScene(**vars(scene), ordering=Ordering(folder / "adapter", folder, lead, DRAWN))


def texts_of(points: Sequence[PointId]) -> list[str]:
    names = {id_of(at): f"text {at}" for at in range(COUNT)}
    return [names[point] for point in points]


def is_synced(record: object) -> bool:
    return getattr(record, "state", None) is State.SYNCED


@pytest.mark.parametrize("lead", [0, 100])
async def test_what_queries_find_goes_first_once_the_adapter_has_enough_to_learn_from(
    scene: Scene, tmp_path: Path, learnt: Path, lead: int
) -> None:
    scene = await ordered_scene(scene, tmp_path, learnt, lead)
    scene.encoder.batch_size = 8
    await scene.change(pace=scene.record.pace.model_copy(update={"workers": 1, "batch_seconds": 0.001}))
    assert scene.samples is not None
    async with scene.led():
        record = await scene.until(is_synced)
        popular = texts_of(read_popular(popular_path(scene.samples, scene.id)) or ())
    asked = scene.encoder.texts
    assert sorted(asked) == sorted(f"text {at}" for at in range(COUNT))
    assert record.checkpoint.points == COUNT
    assert len(popular) > 100
    places = [asked.index(text) for text in popular]
    before = min(places)
    assert (lead <= before < lead + 100) if lead else before == 0
    assert asked[:before] == texts_by_id()[:before]
    after = asked[before + len(popular) :]
    assert after == [text for text in texts_by_id() if text in set(after)], "what nobody looks for goes by id"
    assert set(places) == set(range(before, before + len(popular))), "the others come after them"
    assert max(places[:8]) < before + 64, "the first page has the most popular ones"
    assert np.mean(places[:40]) < np.mean(places[40:80]) < np.mean(places[-40:])
    assert (await find_differences(scene.client, record.spec)).none


def texts_by_id() -> list[str]:
    numbers = [f"text {at}" for at in range(COUNT) if at % 3]
    return numbers + [f"text {at}" for at in range(0, COUNT, 3)]


@pytest.mark.parametrize("points", [20, 80, 150, 250])
async def test_after_an_end_half_way_nothing_is_left_out_and_little_done_again(
    scene: Scene, tmp_path: Path, learnt: Path, points: int
) -> None:
    scene = await ordered_scene(scene, tmp_path, learnt, 60)
    scene.encoder.delay = 0.05
    async with scene.led():
        await scene.until(lambda one: one.checkpoint.points >= points)
    half, before = (await scene.now()).checkpoint, len(scene.encoder.texts)
    assert not half.done
    assert len(half.open) + len(half.ahead_open) <= scene.record.pace.workers
    async with scene.led():
        record = await scene.until(is_synced)
    texts = scene.encoder.texts
    assert len(set(texts)) == record.checkpoint.points == COUNT
    assert len(texts) - len(set(texts)) <= before - half.points
    assert (await find_differences(scene.client, record.spec)).none


@pytest.mark.parametrize("seed", [2])
async def test_a_controller_killed_anywhere_on_the_way_leaves_nothing_out(
    qdrant: QdrantServer, tmp_path: Path, learnt: Path, seed: int
) -> None:
    async def prepare(scene: Scene) -> None:
        await ordered_scene(scene, tmp_path, learnt, 0)

    outcome = await run_chaos(qdrant.grpc_port, qdrant.rest_port, tmp_path, kills=4, seed=seed, prepare=prepare)
    assert outcome.kills.total() == 4
    assert list((tmp_path / "migrations").glob("popular-*.json")), "it went by popularity"
    assert outcome.failed_writes == 0
    assert outcome.differences.none, outcome


async def test_a_list_that_is_lost_half_way_begins_the_walk_again(scene: Scene, tmp_path: Path, learnt: Path) -> None:
    scene = await ordered_scene(scene, tmp_path, learnt, 0)
    scene.encoder.delay = 0.05
    assert scene.samples is not None
    async with scene.led():
        await scene.until(lambda one: one.checkpoint.ahead > 0)
    popular_path(scene.samples, scene.id).write_bytes(b"{")
    async with scene.led():
        record = await scene.until(is_synced)
    assert record.checkpoint.points == COUNT
    assert (await find_differences(scene.client, record.spec)).none


async def test_without_enough_observed_queries_documents_go_by_id(
    scene: Scene, tmp_path: Path, learnt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = await ordered_scene(scene, tmp_path, learnt, 0, observed=49)
    assert scene.ordering is not None
    with caplog.at_level(logging.WARNING, "crossfade.migration.popular"):
        found = await find_popular(scene.index, scene.record.spec, scene.ordering, tmp_path / "list", None)
    assert found == read_popular(tmp_path / "list") == []
    assert "fewer than 50 queries were observed" in caplog.text
    async with scene.led():
        record = await scene.until(is_synced)
    assert record.checkpoint.points == COUNT


async def test_what_queries_find_stands_near_them(scene: Scene, tmp_path: Path, learnt: Path) -> None:
    scene = await ordered_scene(scene, tmp_path, learnt, 0)
    assert scene.ordering is not None
    found = await find_popular(scene.index, scene.record.spec, scene.ordering, tmp_path / "list", None)
    assert read_popular(tmp_path / "list") == found
    middle = np.stack([old_of(encode_one(f"text {at}", "passage")) for at in range(200, 220)]).mean(axis=0)
    near = np.array([old_of(encode_one(text, "passage")) @ middle for text in texts_of(found)])
    assert near[:30].mean() > near[-30:].mean()


def test_a_place_counts_the_more_the_higher_it_is() -> None:
    scores = np.zeros(3, np.float32)
    found = [Hits([1, "b", 3], scores), Hits(["b", 3, 1], scores), Hits([3, 9, "b"], scores)]
    assert rank_found(found) == ["b", 3, 1, 9]
    assert rank_found([]) == []
