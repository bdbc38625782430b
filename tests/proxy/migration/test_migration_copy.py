"""The migration from start to SYNCED, against the embedded Qdrant: nothing lost, resurrected or stale."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import numpy as np

from crossfade.proxy.migration.journal import Native
from crossfade.proxy.migration.ledger import Ledger
from crossfade.proxy.migration.machine import State
from tests.proxy.migration.scenery import (
    Scene,
    find_differences,
    id_of,
    old_vector,
    point_of,
    read_everything,
    write_at_random,
)


def is_synced(record: object) -> bool:
    return getattr(record, "state", None) is State.SYNCED


async def test_every_point_is_re_encoded_and_the_settings_are_kept(scene: Scene) -> None:
    async with scene.led():
        record = await scene.until(is_synced)
    assert (await find_differences(scene.client, record.spec)).none
    assert record.total == record.checkpoint.points == record.tally.written == record.tally.encoded == 300
    assert record.migrated == 1.0
    made = await scene.client.get_collection(record.spec.target)
    assert "tag" in made.payload_schema
    steps = [event.step for event in await scene.store.events(scene.id)]
    assert steps == ["plan", "prepare", "capture", "backfill", "sync"]


async def test_no_acknowledged_write_is_lost_resurrected_or_overwritten_by_an_older_one(scene: Scene) -> None:
    keys = [id_of(at) for at in range(12)] + [f"00000000-0000-0000-0000-{at:012}" for at in range(4)]
    scene.encoder.delay = 0.02  # so that pages are read well before they are written

    async def keep_writing(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            await write_at_random(scene.worker, chance, keys)

    async with scene.led():
        await asyncio.gather(*(keep_writing(seed) for seed in range(6)))
        await scene.until(is_synced)
        await scene.until_quiet()
        found = await find_differences(scene.client, scene.record.spec)
    assert found.none, found


async def test_a_page_that_was_read_before_a_write_does_not_overwrite_it_in_the_target(scene: Scene) -> None:
    scene.encoder.blocked = asyncio.Event()
    name, point = scene.record.spec.collection, id_of(1)
    async with scene.led():
        await scene.until(lambda one: one.state is State.BACKFILLING)
        await asyncio.sleep(0.5)  # the first pages have been read, and wait for the encoder
        changed = point_of(point, "changed meanwhile")
        await scene.worker.write([point], lambda: scene.client.upsert(name, [changed], wait=True))
        await scene.worker.write([id_of(2)], lambda: scene.client.delete(name, [id_of(2)], wait=True))
        await asyncio.sleep(0.5)
        scene.encoder.blocked.set()
        await scene.until(is_synced)
        await scene.until_quiet()
        found = await find_differences(scene.client, scene.record.spec)
    assert found.none, found


async def test_a_write_that_reaches_the_database_long_after_its_mark_is_not_lost(scene: Scene) -> None:
    name, point = scene.record.spec.collection, id_of(1)

    async def forward_late() -> None:
        await asyncio.sleep(0.7)
        await scene.client.upsert(name, [point_of(point, "late")], wait=True)

    async with scene.led():
        await scene.until(is_synced)
        await scene.worker.write([point], forward_late)
        await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none


async def test_a_point_that_is_written_to_all_the_time_is_brought_over_all_the_same(scene: Scene) -> None:
    async with scene.led():
        await scene.until(is_synced)
        hanging = await scene.journal.mark(scene.id, [id_of(4)], "a write that hangs")
        changed = point_of(id_of(4), "changed meanwhile")
        name = scene.record.spec.collection
        await scene.worker.write([id_of(4)], lambda: scene.client.upsert(name, [changed], wait=True))
        for _ in range(200):
            (left,) = await scene.journal.dirty(scene.id, 10)
            if not left.ended:
                break
            await asyncio.sleep(0.05)
        assert (left.seq, left.ended, left.finished) == (hanging.seq, (), False)
        assert (await find_differences(scene.client, scene.record.spec)).none
        await scene.journal.close(hanging)
        await scene.until_quiet()


async def test_a_vector_that_a_client_sent_goes_to_the_target_as_it_is_until_its_point_changes(scene: Scene) -> None:
    stored, sent = np.array(old_vector("mapped"), np.float32), np.arange(1, 25, dtype=np.float32)
    name, point = scene.record.spec.collection, id_of(1)

    async def read_vector() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray((await read_everything(scene.client, scene.record.spec.target))[point].vector)

    async with scene.led():
        await scene.until(is_synced)
        written = point_of(point, "mapped")
        await scene.worker.write(
            [point], lambda: scene.client.upsert(name, [written], wait=True), {point: Native(stored, sent)}
        )
        await scene.until_quiet()
        np.testing.assert_allclose(await read_vector(), sent / np.linalg.norm(sent), atol=1e-6)
        await scene.worker.write([point], lambda: scene.client.set_payload(name, {"seen": 1}, [point], wait=True))
        await scene.until_quiet()
        np.testing.assert_allclose(await read_vector(), sent / np.linalg.norm(sent), atol=1e-6)
        assert (await scene.journal.natives(scene.id, [point])).keys() == {point}
        changed = point_of(point, "another text")
        await scene.worker.write([point], lambda: scene.client.upsert(name, [changed], wait=True))
        await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none
        assert await scene.journal.natives(scene.id, [point]) == {}  # nobody can need it again


async def test_a_text_is_encoded_once_however_often_its_point_is_written_otherwise(scene: Scene) -> None:
    name = scene.record.spec.collection
    async with scene.led():
        await scene.until(lambda one: one.state is State.SYNCED)
        spent = (await scene.now()).tally
        scene.encoder.texts.clear()
        for edition in range(3):
            change = partial(scene.client.set_payload, name, {"edition": edition}, [id_of(0), id_of(1)], wait=True)
            await scene.worker.write([id_of(0), id_of(1)], change)
            await scene.until_quiet()
        assert scene.encoder.texts == []
        assert (await scene.now()).tally.tokens == spent.tokens
        await scene.worker.write([id_of(0)], partial(scene.client.upsert, name, [point_of(id_of(0), "new")], wait=True))
        await scene.until_quiet()
        assert scene.encoder.texts == ["new"]
    assert (await find_differences(scene.client, scene.record.spec)).none


async def test_what_cannot_be_encoded_is_told_and_does_not_stop_the_others(scene: Scene) -> None:
    name = scene.record.spec.collection
    textless = point_of(1000, "x")
    textless.payload = {"tag": "no text"}
    await scene.client.upsert(name, [textless, point_of(1001, "unspeakable words")], wait=True)
    async with scene.led():
        await scene.until(is_synced)
        count, letters = await Ledger(scene.store).dead(scene.id)
        assert count == 2
        assert letters[1000] == "no text at 'payload.text'"
        assert "the encoder test failed" in letters[1001]
        there = await read_everything(scene.client, scene.record.spec.target)
        assert len(there) == 302
        assert there[1001].payload == {"text": "unspeakable words", "tag": "t2"}
        assert not there[1001].vector
        healed = point_of(1001, "spoken words")
        await scene.worker.write([1001], lambda: scene.client.upsert(name, [healed], wait=True))
        await scene.until_quiet()
        assert (await Ledger(scene.store).dead(scene.id))[1].keys() == {1000}


async def test_what_moved_past_the_proxy_is_found_by_another_walk(scene: Scene) -> None:
    name = scene.record.spec.collection
    async with scene.led():
        await scene.until(is_synced)
        await scene.client.delete(name, [id_of(at) for at in range(0, 300, 7)], wait=True)
        await scene.client.upsert(name, [point_of(at, f"restored {at}") for at in range(2000, 2050)], wait=True)
        assert not (await find_differences(scene.client, scene.record.spec)).none
        await scene.journal.close(await scene.journal.mark_all(scene.id, "w"))
        await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none


async def test_an_encoder_that_is_down_is_waited_for_and_told(scene: Scene) -> None:
    scene.encoder.down = True
    async with scene.led():
        record = await scene.until(lambda one: one.throttled is not None)
        assert "the encoder test failed" in (record.throttled or "")
        assert record.state is State.BACKFILLING
        scene.encoder.down = False
        record = await scene.until(is_synced)
    assert record.throttled is None
    assert (await find_differences(scene.client, record.spec)).none


async def test_after_an_end_half_way_only_unfinished_pages_are_done_again(scene: Scene) -> None:
    scene.encoder.delay = 0.1
    async with scene.led():
        await scene.until(lambda one: one.checkpoint.points >= 64)
    half, before = (await scene.now()).checkpoint, len(scene.encoder.texts)
    assert not half.done
    assert len(half.open) <= scene.record.pace.workers
    async with scene.led():
        record = await scene.until(is_synced)
    texts = scene.encoder.texts
    assert len(set(texts)) == record.checkpoint.points == 300
    assert len(texts) - len(set(texts)) <= before - half.points
    assert (await find_differences(scene.client, record.spec)).none


async def test_a_paused_migration_copies_nothing_but_goes_on_capturing(scene: Scene) -> None:
    await scene.change(paused=True)
    name = scene.record.spec.collection
    async with scene.led():
        await scene.until(lambda one: one.state is State.BACKFILLING)
        changed = point_of(id_of(5), "changed while paused")
        await scene.worker.write([id_of(5)], lambda: scene.client.upsert(name, [changed], wait=True))
        for _ in range(200):
            if (await scene.journal.backlog(scene.id)).count == 0:
                break
            await asyncio.sleep(0.05)
        assert (await read_everything(scene.client, scene.record.spec.target)).keys() == {id_of(5)}
        assert (await scene.now()).checkpoint.points == 0
        await scene.change(paused=False)
        await scene.until(is_synced)
    assert (await find_differences(scene.client, scene.record.spec)).none
