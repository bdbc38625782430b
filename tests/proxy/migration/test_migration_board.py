"""What workers are told, and when all of them act on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from crossfade.proxy.journals import name_writer
from crossfade.proxy.leading import read_led
from crossfade.proxy.leads import Leads
from crossfade.proxy.live import MIGRATIONS
from crossfade.proxy.loading import read_config
from crossfade.proxy.migration.board import Board
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.missed import find_missed, note_missed
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.replicas import GONE, TERM, Replicas
from crossfade.proxy.migration.store import Store
from crossfade.proxy.supervisor import DIALECTS
from crossfade.proxy.term import read_term

SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=8, text="payload.text")
CONFIG = """
listen: {qdrant: {grpc: "127.0.0.1:1"}}
upstreams: {main: {kind: qdrant, grpc: "127.0.0.1:2"}}
models: {old: {dim: 4}}
collections: {docs: {index_model: old}}
"""


class Scenery:
    """A store with one migration, and workers that are files; `name` when the store is shared with other replicas."""

    def __init__(self, folder: Path, url: str | None = None, name: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.now = 0.0
        self.store = Store(url or f"sqlite:///{folder / 'm.db'}", clock=lambda: time.time() + self.now)
        replicas = Replicas(self.store, name) if name is not None else None
        self.pids = [1, 2]
        self.journal = Journal(f"sqlite:///{folder / 'j.db'}")
        self.config = read_config(CONFIG, folder)
        leads = Leads(folder, lambda: self.config, DIALECTS, lambda: self.pids)
        self.board = Board(folder, self.store, lambda: self.pids, leads, self.journal, lambda: self.config, replicas)

    def state(self, pid: int, **versions: int) -> None:
        """What a worker says."""
        self.state_strange(pid, versions, versions)

    def state_strange(self, pid: int, versions: dict[str, int], strange: dict[str, int]) -> None:
        """What a worker says whose writes to unknown names act on something else."""
        stated: dict[str, Any] = {"pid": pid, "generation": 1, "error": None, "epoch": 0, "migrations": versions}
        stated["strange"] = strange
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


async def test_a_capture_is_not_seen_while_a_write_to_an_unknown_name_may_turn_out_to_be_its_own(
    scenery: Scenery,
) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    record = await scenery.change(record, state=State.CAPTURING)
    scenery.state(1, **{record.id: record.version})
    behind: list[dict[str, int]] = [{}, {record.id: -1}, {record.id: record.version - 1}]
    for strange in behind:
        scenery.state_strange(2, {record.id: record.version}, strange)
        assert not await scenery.board.have_seen(record.id, record.version)
    scenery.state(2, **{record.id: record.version})
    assert await scenery.board.have_seen(record.id, record.version)


async def test_a_collection_is_led_under_all_its_names_until_its_migration_is_cancelled(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    await scenery.change(record, state=State.CAPTURING, aliases=("d", "e"))
    await scenery.board.look()
    assert read_led(scenery.folder).names == {"docs": "docs", "d": "docs", "e": "docs"}
    await scenery.change(record, state=State.CANCELLED)
    await scenery.board.look()
    assert read_led(scenery.folder).names == {}


async def test_what_a_process_that_has_ended_left_open_is_closed_and_what_lives_is_left_alone(
    scenery: Scenery,
) -> None:
    host = socket.gethostname()
    process = subprocess.Popen(["sleep", "60"])
    mine, living, gone = name_writer(os.getpid()), name_writer(process.pid), f"{host}:{process.pid}:1"
    elsewhere = "another-host-that-had-the-file-before:1:1"
    for number, writer in enumerate((mine, living, gone, elsewhere)):
        await scenery.journal.mark("m", [number], writer)
    await scenery.board.tend()
    assert await scenery.journal.open_writers() == sorted([mine, living])
    process.kill()
    process.wait()
    await scenery.board.tend()
    assert await scenery.journal.open_writers() == [mine]


async def test_after_writes_had_to_pass_unmarked_everything_is_marked_once(scenery: Scenery) -> None:
    record = await scenery.store.plan(SPEC, "me", "")
    await scenery.change(record, state=State.SYNCED)
    await scenery.board.look()
    note_missed(scenery.config, scenery.folder, record.id)
    note_missed(scenery.config, scenery.folder, "of-a-migration-that-is-over")
    await scenery.board.tend()
    assert find_missed(scenery.config, scenery.folder) == []
    mark = await scenery.journal.whole(record.id)
    assert mark is not None
    assert not mark.finished, "the last write that passed may still be under way"
    await scenery.board.tend()
    again = await scenery.journal.whole(record.id)
    assert again is not None
    assert again.seq == mark.seq


async def test_a_note_that_cannot_be_left_in_the_state_s_folder_is_left_in_the_run_directory(tmp_path: Path) -> None:
    config = read_config(CONFIG, tmp_path)
    config.state.parent.mkdir(exist_ok=True)
    config.state.write_text("no folder")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    note_missed(config, run_dir, "m1")
    assert find_missed(config, run_dir) == ["m1"]


def share(tmp_path: Path) -> tuple[Scenery, Scenery]:
    """Two replicas of one store, each with two workers."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    return Scenery(tmp_path / "one", url, "host-one:1:1"), Scenery(tmp_path / "two", url, "host-two:1:1")


def act(scenery: Scenery, record: Migration) -> None:
    for pid in scenery.pids:
        scenery.state(pid, **{record.id: record.version})


async def test_a_version_counts_as_seen_only_once_the_workers_of_every_replica_act_on_it(tmp_path: Path) -> None:
    one, two = share(tmp_path)
    await two.board.renew()
    record = await one.store.plan(SPEC, "me", "")
    record = await one.change(record, state=State.CAPTURING)
    act(one, record)
    assert not await one.board.have_seen(record.id, record.version), "the other one knows nothing of it yet"
    await two.board.look()
    await two.board.renew()
    assert not await one.board.have_seen(record.id, record.version), "its workers do not act on it yet"
    act(two, record)
    await two.board.renew()
    assert await one.board.have_seen(record.id, record.version)


async def test_a_replica_that_has_left_or_must_be_dead_is_not_waited_for(tmp_path: Path) -> None:
    one, two = share(tmp_path)
    await two.board.renew()
    record = await one.store.plan(SPEC, "me", "")
    record = await one.change(record, state=State.CAPTURING)
    act(one, record)
    one.now = TERM + 1
    assert not await one.board.have_seen(record.id, record.version), "its last writes may still be under way"
    one.now = GONE + 1
    assert await one.board.have_seen(record.id, record.version)
    two.now = one.now
    await two.board.renew()
    assert not await one.board.have_seen(record.id, record.version), "it is back"
    assert two.board.replicas is not None
    await two.board.replicas.leave()
    assert await one.board.have_seen(record.id, record.version)


async def test_writers_of_a_replica_that_is_gone_are_closed_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    one, two = share(tmp_path)
    await two.board.renew()
    await one.board.renew()
    await one.journal.mark("m", [1], "host-two:99:1")
    await one.board.tend()
    assert await one.journal.open_writers() == ["host-two:99:1"]
    one.now = GONE + 1
    await one.board.renew()
    await one.board.tend()
    assert await one.journal.open_writers() == []


async def test_a_replica_that_was_out_of_touch_acts_again_only_once_its_workers_know_what_is_true_now(
    tmp_path: Path,
) -> None:
    one, two = share(tmp_path)
    await two.board.renew()
    assert 0 < read_term(two.folder) - time.monotonic() <= TERM
    two.board._until = time.monotonic() - 1  # it could not renew for a while
    before = read_term(two.folder)
    record = await one.store.plan(SPEC, "me", "")
    record = await one.change(record, state=State.CAPTURING)
    await two.board.renew()
    assert read_term(two.folder) == before
    assert [view["id"] for view in two.published()] == [record.id], "but its workers are told"
    act(two, record)
    await two.board.renew()
    assert read_term(two.folder) > before


async def test_replicas_lead_what_may_be_migrated_at_any_moment(tmp_path: Path) -> None:
    one, _ = share(tmp_path)
    text = CONFIG.replace("{index_model: old}", "{index_model: old, text: payload.text, migrate: {to: new}}")
    encoder = '{dim: 4, encoder: {python: "a:b"}}'
    one.config = read_config(text.replace("{old: {dim: 4}}", f"{{old: {{dim: 4}}, new: {encoder}}}"), tmp_path)
    await one.board.look()
    assert read_led(one.folder).names == {"docs": "docs"}
