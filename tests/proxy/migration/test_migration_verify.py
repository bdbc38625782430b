"""Verification against the embedded Qdrant: planted damage is found, clean collections under writes raise no alarm."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import numpy as np
import pytest
from qdrant_client import models

from crossfade.proxy.migration.errors import GateClosed
from crossfade.proxy.migration.ledger import Ledger
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Migration
from crossfade.proxy.migration.verbs import Say, Verbs
from crossfade.proxy.migration.verify import is_sampled
from tests.proxy.encoding_function import encode_one
from tests.proxy.migration.scenery import Scene, find_differences, id_of, point_of, read_everything, write_at_random


def say(scene: Scene) -> Say:
    return Say(scene.record.spec.collection, "tester", "to see")


@pytest.fixture
async def synced(scene: Scene) -> AsyncIterator[Scene]:
    """A migration that is SYNCED, under a controller."""
    async with scene.led():
        await scene.until(lambda one: one.state is State.SYNCED)
        yield scene


async def verify(scene: Scene) -> Migration:
    await Verbs(scene.store, scene.journal).verify(say(scene))
    return await scene.until(lambda one: one.verification.finished_at is not None)


async def test_planted_damage_is_found_by_kind_and_repaired(synced: Scene) -> None:
    client, target = synced.client, synced.record.spec.target
    await client.delete(target, [id_of(10)], wait=True)
    extra = models.PointStruct(id=9000, vector=encode_one("x", "passage").tolist(), payload={"text": "x"})
    await client.upsert(target, [extra], wait=True)
    await client.set_payload(target, {"tag": "edited"}, [id_of(20)], wait=True)
    there = await read_everything(client, target)
    swapped = [
        models.PointVectors(id=id_of(30), vector=there[id_of(31)].vector),  # type: ignore[arg-type] # dense
        models.PointVectors(id=id_of(31), vector=there[id_of(30)].vector),  # type: ignore[arg-type] # dense
    ]
    await client.update_vectors(target, swapped, wait=True)
    record = await verify(synced)
    assert record.verification.found == {"missing": 1, "extra": 1, "payload": 1, "vector": 2}
    assert await Ledger(synced.store).found(synced.id) == {
        id_of(10): "missing",
        9000: "extra",
        id_of(20): "payload",
        id_of(30): "vector",
        id_of(31): "vector",
    }
    verbs = Verbs(synced.store, synced.journal)
    with pytest.raises(GateClosed, match="found 1 extra, 1 missing, 1 payload, 2 vector; say repair, then verify"):
        await verbs.switch(say(synced), 10)
    assert await verbs.repair(say(synced)) == 5
    await synced.until_quiet()
    assert (await find_differences(client, synced.record.spec)).none
    assert (await verify(synced)).verification.found == {}
    assert (await verbs.switch(say(synced), 10)).state is State.CANARY


async def test_vectors_of_the_wrong_model_are_found_by_encoding_a_sample_again(scene: Scene) -> None:
    honest = scene.encoder.encode

    async def now_and_then_wrong(texts: list[str], role: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        rows = await honest(texts, "passage")
        for at, text in enumerate(texts):
            if text.endswith("77"):  # 3 of the 300
                rows[at] = encode_one(text, "another model")
        return rows

    scene.encoder.encode = now_and_then_wrong  # type: ignore[method-assign, assignment] # the encoder goes wrong
    async with scene.led():
        await scene.until(lambda one: one.state is State.SYNCED)
        scene.encoder.encode = honest  # type: ignore[method-assign] # and is right again
        record = await verify(scene)
    assert record.verification.sampled == 300
    assert record.verification.found == {"encoding": 3}


async def test_a_clean_collection_raises_no_alarm_while_it_is_written_to(synced: Scene) -> None:
    keys = [id_of(at) for at in range(25)]
    stop = asyncio.Event()

    async def keep_writing(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            await write_at_random(synced.worker, chance, keys)

    writers = [asyncio.ensure_future(keep_writing(seed)) for seed in range(3)]
    for _ in range(3):
        record = await verify(synced)
        assert record.verification.found == {}
        assert record.verification.compared >= 290
    stop.set()
    await asyncio.gather(*writers)


async def test_a_verification_goes_on_where_a_controller_ended(scene: Scene) -> None:
    async with scene.led():
        await scene.until(lambda one: one.state is State.SYNCED)
        name = scene.record.spec.collection
        more = [point_of(at, f"more {at}") for at in range(3000, 3600)]
        await scene.worker.write(range(3000, 3600), lambda: scene.client.upsert(name, more, wait=True))
        await scene.until_quiet()
        await Verbs(scene.store, scene.journal).verify(say(scene))
        await scene.until(lambda one: one.verification.compared > 0)
    half = (await scene.now()).verification
    assert half.finished_at is None
    async with scene.led():
        whole = (await scene.until(lambda one: one.verification.finished_at is not None)).verification
    assert whole.compared == 900
    assert whole.found == {}


def test_the_sample_is_the_same_for_the_same_seed_and_as_large_as_asked() -> None:
    chosen = {point for point in range(20_000) if is_sampled(point, 0.05, 1)}
    assert chosen == {point for point in range(20_000) if is_sampled(point, 0.05, 1)}
    assert 900 < len(chosen) < 1100
    assert len(chosen & {point for point in range(20_000) if is_sampled(point, 0.05, 2)}) < 120
