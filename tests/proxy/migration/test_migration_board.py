"""What workers are told, and when all of them act on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from crossfade.proxy.live import MIGRATIONS
from crossfade.proxy.migration.board import Board
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.store import Store

SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=8, text="payload.text")


class Scenery:
    """A store with one migration, and workers that are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(f"sqlite:///{folder / 'm.db'}")
        self.pids = [1, 2]
        self.board = Board(folder, self.store, lambda: self.pids)

    def state(self, pid: int, **versions: int) -> None:
        """What a worker says."""
        stated = {"pid": pid, "generation": 1, "error": None, "migrations": versions}
        (self.folder / f"worker-{pid}.json").write_bytes(orjson.dumps(stated))

    def published(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / MIGRATIONS).read_text())
        return found

    async def change(self, record: Migration, **update: Any) -> Migration:
        return await self.store.change(record.id, lambda one: one.model_copy(update=update))


@pytest.fixture
def scenery(tmp_path: Path) -> Scenery:
    return Scenery(tmp_path)


async def test_a_version_counts_as_seen_once_every_running_worker_acts_on_it(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    record = await scenery.change(record, state=State.CAPTURING)
    assert not await scenery.board.have_seen(record.id, record.version)  # nobody has said anything
    scenery.state(1, **{record.id: record.version})
    scenery.state(2, **{record.id: record.version - 1})
    assert not await scenery.board.have_seen(record.id, record.version)
    scenery.state(2, **{record.id: record.version})
    assert await scenery.board.have_seen(record.id, record.version)
    scenery.pids.append(3)  # a new worker that has not said anything yet
    assert not await scenery.board.have_seen(record.id, record.version)
    scenery.pids.remove(3)
    assert await scenery.board.have_seen(record.id, record.version)


async def test_progress_is_not_published_point_by_point_and_counts_as_seen_all_the_same(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    record = await scenery.change(record, state=State.BACKFILLING, total=1000)
    await scenery.board.look()
    (told,) = scenery.published()
    for pid in scenery.pids:
        scenery.state(pid, **{record.id: told["version"]})
    copied = record.checkpoint.model_copy(update={"points": 9})
    record = await scenery.change(record, checkpoint=copied)
    assert await scenery.board.have_seen(record.id, record.version)
    assert scenery.published() == [told]
    record = await scenery.change(record, checkpoint=copied.model_copy(update={"points": 10}))
    assert not await scenery.board.have_seen(record.id, record.version)
    assert scenery.published()[0]["migrated"] == 0.01
    record = await scenery.change(record, checkpoint=copied.model_copy(update={"points": 999}))
    await scenery.board.look()
    assert scenery.published()[0]["migrated"] < 1
    record = await scenery.change(record, checkpoint=copied.model_copy(update={"points": 1000, "listed": True}))
    await scenery.board.look()
    assert scenery.published()[0]["migrated"] == 1


async def test_the_end_of_a_migration_is_seen_when_nothing_acts_on_it_any_more(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    await scenery.board.look()
    for pid in scenery.pids:
        scenery.state(pid, **{record.id: 1})
    record = await scenery.change(record, state=State.CANCELLED)
    assert not await scenery.board.have_seen(record.id, record.version)
    assert scenery.published() == []
    for pid in scenery.pids:
        scenery.state(pid)
    assert await scenery.board.have_seen(record.id, record.version)


async def test_a_completed_migration_is_still_told_because_its_reads_belong_to_the_target(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    await scenery.change(record, state=State.COMPLETED)
    await scenery.board.look()
    assert [(one["target"], one["state"]) for one in scenery.published()] == [("docs--new", "COMPLETED")]
