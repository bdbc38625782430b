"""The later life of a migration: switching, going back, completing, cancelling, failing, and what status tells."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from qdrant_client import models

from crossfade.proxy.migration.errors import BadPlan, GateClosed, IllegalMove, UnknownMigration
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.plan import make_plan
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.verbs import Say, Verbs
from tests.proxy.encoding_function import DIM
from tests.proxy.migration.scenery import Scene, find_differences, id_of, point_of, write_at_random


def say(scene: Scene, *, dry_run: bool = False) -> Say:
    return Say(scene.record.spec.collection, "tester", "to see", dry_run)


def verbs_of(scene: Scene) -> Verbs:
    return Verbs(scene.store, scene.journal)


async def synced(scene: Scene) -> None:
    await scene.until(lambda one: one.state is State.SYNCED)


async def test_reverse_loses_nothing_that_was_written_after_the_switch(scene: Scene) -> None:
    verbs, chance = verbs_of(scene), random.Random(5)
    async with scene.led():
        await synced(scene)
        await verbs.switch(say(scene), 100, force=True)
        for _ in range(20):
            await write_at_random(scene.worker, chance, [id_of(at) for at in range(8)])
        await verbs.reverse(say(scene))
        record = await scene.now()
        assert (record.state, record.view.percent, record.view.captures) == (State.SYNCED, 0.0, True)
        await scene.until_quiet()
        assert (await find_differences(scene.client, record.spec)).none


async def test_a_migration_completes_under_writers_and_the_old_collection_is_left_whole(scene: Scene) -> None:
    verbs = verbs_of(scene)

    async def keep_writing(seed: int) -> None:
        chance = random.Random(seed)
        while scene.worker.view.captures:
            await write_at_random(scene.worker, chance, [id_of(at) for at in range(30)])

    async with scene.led():
        await synced(scene)
        await verbs.switch(say(scene), 100, force=True)
        writers = [asyncio.ensure_future(keep_writing(seed)) for seed in range(2)]
        await asyncio.sleep(0.3)
        await verbs.complete(say(scene))
        record = await scene.until(lambda one: one.state is State.COMPLETED)
        assert not record.completing
        await asyncio.gather(*writers)
        await scene.until(lambda one: one.cleaned)
    assert (await find_differences(scene.client, record.spec)).none
    assert (await scene.journal.backlog(scene.id)).count == 0


async def test_only_a_cancelled_migration_destroys_its_target_and_never_the_old_collection(scene: Scene) -> None:
    async with scene.led():
        await synced(scene)
        before = await scene.index.count(scene.record.spec.collection)
        await verbs_of(scene).cancel(say(scene))
        await scene.until(lambda one: one.cleaned)
    assert not await scene.index.exists(scene.record.spec.target)
    await scene.index.drop(scene.record.spec.target)  # dropping what is not there is no error
    assert await scene.index.count(scene.record.spec.collection) == before


async def test_a_target_that_others_have_filled_is_refused_and_survives_the_cancelling(scene: Scene) -> None:
    spec = scene.record.spec
    await scene.client.create_collection(spec.target, models.VectorParams(size=4, distance=models.Distance.DOT))
    await scene.client.upsert(spec.target, [models.PointStruct(id=1, vector=[1.0, 2.0, 3.0, 4.0])], wait=True)
    async with scene.led():
        record = await scene.until(lambda one: one.state is State.FAILED)
        assert record.failed_in is State.PLANNED
        assert "holds points already" in (record.error or "")
        await verbs_of(scene).cancel(say(scene))
        await scene.until(lambda one: one.cleaned)
    assert await scene.index.count(spec.target) == 1


async def test_a_failed_migration_goes_on_when_its_cause_is_gone(scene: Scene) -> None:
    spec = scene.record.spec
    await scene.client.create_collection(spec.target, models.VectorParams(size=4, distance=models.Distance.DOT))
    async with scene.led():
        record = await scene.until(lambda one: one.state is State.FAILED)
        assert f"has 4 dimensions, but 'new' gives {DIM}" in (record.error or "")
        await scene.index.drop(spec.target)
        await verbs_of(scene).resume(say(scene))
        await synced(scene)
    assert (await find_differences(scene.client, spec)).none


async def test_a_switch_waits_for_its_gates_and_says_which(scene: Scene) -> None:
    verbs = verbs_of(scene)
    async with scene.led():
        await synced(scene)
        with pytest.raises(GateClosed, match="the last verification is never; say verify"):
            await verbs.switch(say(scene), 10)
        await verbs.verify(say(scene))
        await scene.until(lambda one: one.verification.finished_at is not None)
        await verbs.switch(say(scene), 10)
        assert (await scene.until(lambda one: one.view.percent == 10)).state is State.CANARY
        await verbs.switch(say(scene), 100)
        with pytest.raises(IllegalMove, match="'cancel' is not possible while the migration is SWITCHED"):
            await verbs.cancel(say(scene))


async def test_a_dry_run_says_what_would_be_and_does_nothing(scene: Scene) -> None:
    before, events = await scene.now(), len(await scene.store.events(scene.id))
    would = await verbs_of(scene).cancel(say(scene, dry_run=True))
    assert would.state is State.CANCELLED
    with pytest.raises(IllegalMove):
        await verbs_of(scene).complete(say(scene, dry_run=True))
    assert await scene.now() == before
    assert len(await scene.store.events(scene.id)) == events


async def test_status_tells_what_an_operator_wants_to_know(scene: Scene) -> None:
    verbs = verbs_of(scene)
    await verbs.set(say(scene), pace={"max_tokens": 250, "workers": 1})
    async with scene.led():
        await scene.until(lambda one: one.throttled is not None)
        status = await verbs.status(scene.record.spec.collection)
        assert (status.throttled or "").startswith("spend: ")
        assert status.state is State.BACKFILLING
        assert 0 < status.copied < status.total == 300
        assert status.tally.tokens >= 250
        assert status.verified == "never"
        assert "cancel" in status.verbs
        assert "switch" not in status.verbs
        await verbs.set(say(scene), pace={"max_tokens": None})
        await synced(scene)
    status = await verbs.status(scene.record.spec.collection)
    assert (status.copied, status.eta, status.throttled) == (300, None, None)
    assert status.rate is not None
    with pytest.raises(UnknownMigration):
        await verbs.status("absent")


async def test_a_spent_budget_stops_the_following_of_writes_too_and_says_so(scene: Scene) -> None:
    verbs, name = verbs_of(scene), scene.record.spec.collection
    async with scene.led():
        await synced(scene)
        await verbs.set(say(scene), pace={"max_tokens": 1})
        record = await scene.until(lambda one: one.throttled is not None)
        assert (record.throttled or "").startswith("spend: 600 tokens of max_tokens 1;")
        await scene.worker.write([1], lambda: scene.client.upsert(name, [point_of(1, "changed")], wait=True))
        await asyncio.sleep(0.5)
        assert (await verbs.status(name)).backlog.count == 1
        await verbs.set(say(scene), pace={"max_tokens": None})
        await scene.until_quiet()
        await scene.until(lambda one: one.throttled is None)
        assert (await find_differences(scene.client, scene.record.spec)).none


async def test_limits_that_make_no_sense_change_nothing(scene: Scene) -> None:
    with pytest.raises(ValueError, match="hours"):
        await verbs_of(scene).set(say(scene), pace={"hours": "soon"})
    with pytest.raises(ValueError, match="workers"):
        await verbs_of(scene).set(say(scene), pace={"workers": 0})
    assert (await scene.now()).pace == scene.record.pace


async def test_a_flag_file_holds_the_copying_until_it_is_removed(scene: Scene, tmp_path: Path) -> None:
    flag = tmp_path / "hold"
    flag.touch()
    await verbs_of(scene).set(say(scene), pace={"flag_file": str(flag)})
    async with scene.led():
        record = await scene.until(lambda one: one.throttled is not None)
        assert record.throttled == f"flag file: {flag} exists; remove it to go on"
        assert record.checkpoint.points == 0
        flag.unlink()
        await synced(scene)


async def test_a_second_controller_waits_until_the_first_has_ended(scene: Scene) -> None:
    second = asyncio.get_running_loop().create_task(Controller(scene.tools(), "second", ttl=1.0).run())
    await asyncio.sleep(0.2)
    async with scene.led(ttl=1.0):
        await synced(scene)
        lease = await scene.store.acquire("controller", "third", 1.0)
        assert lease is None
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    steps = [event.step for event in await scene.store.events(scene.id)]
    assert steps == ["plan", "prepare", "capture", "backfill", "sync"]


async def test_a_plan_tells_points_without_text_and_cost_and_touches_nothing(scene: Scene) -> None:
    spec = scene.record.spec
    bare = point_of(5000, "x")
    bare.payload = {}
    await scene.client.upsert(spec.collection, [bare], wait=True)
    plan = await make_plan(scene.index, spec, price_per_million=2.0)
    assert (plan.points, plan.sampled, plan.without_text, plan.without_vector) == (301, 301, 1, 0)
    assert plan.tokens == 600  # "text 0" to "text 299": two tokens each, of four bytes
    assert plan.cost == pytest.approx(0.0012)
    assert plan.problems == (
        "about 1 of 301 points have no text at 'payload.text'; they will be in the target without this vector",
    )
    assert not await scene.index.exists(spec.target)
    with pytest.raises(BadPlan, match=r"it has no dense vector 'title'; it has \[''\]"):
        await make_plan(scene.index, spec.model_copy(update={"field": "title"}))
    with pytest.raises(BadPlan, match="the target is the collection itself"):
        await make_plan(scene.index, spec.model_copy(update={"target": spec.collection}))
