"""PostgreSQL as store and journal: several controllers, several machines' clocks, and a server that crashes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.proxy.migration.errors import BadPlan, MigrationStorageError
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Migration
from crossfade.proxy.migration.runner import LEASE, Controller
from crossfade.proxy.migration.store import Store
from tests.proxy.migration.chaos_runs import run_chaos
from tests.proxy.migration.postgres_cluster import PostgresCluster
from tests.proxy.migration.scenery import find_differences, id_of, set_up, spec_of, write_at_random


async def test_killed_controllers_lose_nothing_on_postgresql(
    qdrant: QdrantServer, postgres: PostgresCluster, tmp_path: Path
) -> None:
    outcome = await run_chaos(
        qdrant.grpc_port, qdrant.rest_port, tmp_path, kills=2, seed=3, url=postgres.make_database()
    )
    assert outcome.kills.total() == 2
    assert outcome.writes > 20
    assert outcome.failed_writes == 0
    assert outcome.differences.none, outcome


async def test_of_two_controllers_one_leads_and_the_other_follows_when_it_goes(
    qdrant: QdrantServer, postgres: PostgresCluster
) -> None:
    async with set_up(qdrant.grpc_port, qdrant.rest_port, postgres.make_database(), 200) as scene:
        scene.encoder.blocked = asyncio.Event()
        beside = asyncio.ensure_future(scene.worker.follow())
        both = {name: asyncio.ensure_future(Controller(scene.tools(), name, ttl=3.0).run()) for name in ("a", "b")}
        await scene.until(lambda one: one.state is State.BACKFILLING)
        leader = await scene.store.leader(LEASE)
        assert leader is not None
        first, other = both.pop(leader.holder), next(iter(both.values()))
        first.cancel()
        scene.encoder.blocked.set()
        await scene.until(lambda one: one.state is State.SYNCED)
        follower = await scene.store.leader(LEASE)
        assert follower is not None
        assert (follower.holder, follower.token) == (next(iter(both)), leader.token + 1)
        for task in (other, beside):
            task.cancel()
        await asyncio.gather(first, other, beside, return_exceptions=True)
        assert (await find_differences(scene.client, scene.record.spec)).none


async def test_a_crash_of_the_server_refuses_writes_and_loses_no_mark(
    qdrant: QdrantServer, postgres: PostgresCluster
) -> None:
    keys = [id_of(at) for at in range(20)]
    async with set_up(qdrant.grpc_port, qdrant.rest_port, postgres.make_database(), 300) as scene:
        async with scene.led(ttl=3.0):
            await scene.until(lambda one: one.state is State.BACKFILLING)
            for seed in range(10):
                await write_at_random(scene.worker, random.Random(seed), keys)
            await asyncio.to_thread(postgres.stop)
            try:
                with pytest.raises(MigrationStorageError, match=r"postgresql\+psycopg://.* cannot be used"):
                    await scene.journal.mark(scene.id, [1], "w")
            finally:
                await asyncio.to_thread(postgres.start)
            for seed in range(10):
                await write_at_random(scene.worker, random.Random(seed + 100), keys)
            await scene.until(lambda one: one.state is State.SYNCED)
            await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none


async def test_two_machines_that_plan_or_take_the_lease_at_once_do_not_both_succeed(postgres: PostgresCluster) -> None:
    url = postgres.make_database()
    stores = [Store(url) for _ in range(6)]

    async def plan(store: Store) -> Migration | None:
        try:
            return await store.plan(spec_of("docs"), "me", "")
        except BadPlan:
            return None

    planned = await asyncio.gather(*map(plan, stores))
    assert len([one for one in planned if one is not None]) == 1
    taken = await asyncio.gather(*(store.acquire(LEASE, str(at), 30) for at, store in enumerate(stores)))
    assert len([one for one in taken if one is not None]) == 1
    for store in stores:
        store.shut()


async def test_a_machine_whose_clock_is_wrong_ends_neither_lease_nor_write_early(
    postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.make_database()
    store, journal = Store(url), Journal(url)
    assert await store.acquire(LEASE, "right", 30) is not None
    await journal.close(await journal.mark("m", [1], "w"), settles_in=30)
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: 4e9)  # a machine that lives in the year 2096
        ahead, late = Store(url), Journal(url)
        assert await ahead.acquire(LEASE, "wrong", 30) is None
        assert not (await late.dirty("m", 1))[0].finished
        ahead.shut()
        late.shut()
    journal.shut()
    store.shut()


async def test_a_write_that_the_database_cannot_take_fails_alone(postgres: PostgresCluster) -> None:
    journal = Journal(postgres.make_database())
    asked = [journal.mark("m", ["a key with \x00 in it" if at == 3 else f"key {at}"], "w") for at in range(8)]
    marks = await asyncio.gather(*asked, return_exceptions=True)
    assert [at for at, one in enumerate(marks) if isinstance(one, BaseException)] == [3]
    assert isinstance(marks[3], MigrationStorageError)
    assert len(await journal.dirty("m", 10)) == 7
    journal.shut()


@pytest.mark.parametrize("url", ["postgresql://crossfade@127.0.0.1:1/none", "mysqlx://somewhere/db"])
def test_a_database_that_cannot_be_opened_is_named(url: str) -> None:
    with pytest.raises(MigrationStorageError, match=r"127.0.0.1:1/none|somewhere/db"):
        Store(url)
