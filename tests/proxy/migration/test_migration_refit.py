"""The adapter learns from what is re-encoded: when it is fitted again, on what, and what stands against it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from crossfade.adapters.base import Adapter
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.store import load_adapter, save_adapter
from crossfade.backends.dialect import Float32
from crossfade.proxy.migration.conduct import Tools
from crossfade.proxy.migration.journal import Native
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.places import grown_path
from crossfade.proxy.migration.refit import Refit, Refitting, forget_refit, pairs_path
from crossfade.proxy.migration.sample import Sampler, read_sample
from tests.proxy.encoding_function import DIM, encode_one
from tests.proxy.migration.scenery import OLD_DIM, Scene, id_of, spec_of

BEND = np.random.default_rng(5).normal(size=(DIM, OLD_DIM)).astype(np.float32)


def old_of(new: Float32) -> Float32:
    """The old model: the new one bent, which a map can learn."""
    rows = new @ BEND + 0.3 * np.sin(3 * new[..., :OLD_DIM])
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def texts(count: int, first: int = 0) -> Float32:
    return np.stack([encode_one(f"text {at}", "passage") for at in range(first, first + count)])


def fitted(path: Path, count: int) -> Adapter:
    """An adapter in a folder, fitted on texts of which the collection has none."""
    new = texts(count, first=10_000)
    made = fit_adapter(make_pairs(new, old_of(new)), source_model="new", target_model="old", corpus_size=10_000)
    save_adapter(made, path)
    return made


async def write_old_vectors(scene: Scene, points: Sequence[int]) -> None:
    vectors = [
        models.PointVectors(id=id_of(at), vector=old_of(encode_one(f"text {at}", "passage")).tolist()) for at in points
    ]
    await scene.client.update_vectors(scene.record.spec.collection, vectors, wait=True)


@dataclass
class RefittingScene(Scene):
    """A migration whose adapter may learn."""

    refitting: Refitting | None = None

    def tools(self) -> Tools:
        return replace(super().tools(), refitting=lambda _: self.refitting)


def refitting_scene(scene: Scene, folder: Path, most: int) -> RefittingScene:
    scene.samples = folder / "migrations"
    settings = Refitting(folder / "adapter", most, folder, observes=True)
    return RefittingScene(**vars(scene), refitting=settings)


async def test_the_adapter_is_fitted_again_on_what_is_re_encoded(scene: Scene, tmp_path: Path) -> None:
    first = fitted(tmp_path / "adapter", 40)
    await write_old_vectors(scene, range(300))
    scene = refitting_scene(scene, tmp_path, 8_000)
    assert scene.samples is not None
    async with scene.led():
        await scene.until(lambda record: record.state is State.SYNCED)
        record = await scene.until(lambda record: record.refitted >= 280, 90)
        grown = load_adapter(grown_path(scene.samples, scene.id), source_model="new", target_model="old")
    assert grown.card.pairs.count == record.refitted
    assert grown.card.pairs.share == pytest.approx(record.refitted / 300)
    assert load_adapter(tmp_path / "adapter").card == first.card, "the configured adapter is the operator's"
    unseen = texts(200, first=20_000)
    apart = [np.square(one.query.apply(unseen) - old_of(unseen)).sum() for one in (first, grown)]
    assert apart[1] < 0.8 * apart[0]


async def test_few_pairs_more_are_not_worth_a_fit_and_many_are(tmp_path: Path) -> None:
    fitted(tmp_path / "adapter", 400)
    sampler = Sampler(pairs_path(tmp_path, "m"), "cosine", 1_000)
    settings = Refitting(tmp_path / "adapter", 1_000, tmp_path, observes=False)
    told: list[int] = []

    async def tell(pairs: int) -> None:
        told.append(pairs)

    refit = Refit("m", spec_of("docs"), settings, sampler, tmp_path, tell)
    new = texts(2_000)
    old = old_of(new)
    due = {}
    for at in range(0, 2_000, 50):
        sampler.note({row: (new[row], old[row]) for row in range(at, at + 50)}, [])
        due[len(sampler)] = refit.is_due(copied=False), refit.is_due(copied=True)
    assert due[400] == (False, False)
    assert due[450] == (False, True)
    assert due[550] == (False, True)
    assert due[600] == (True, True)
    assert due[1_000] == (True, True)
    assert len(sampler) == 1_000

    async def count() -> int:
        return 2_000

    work = asyncio.create_task(refit.run(lambda: False, count))
    while not told:
        await asyncio.sleep(0.1)
    assert told == [1_000]
    assert not refit.is_due(copied=False)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    kept = read_sample(pairs_path(tmp_path, "m"))
    assert kept is not None
    assert len(kept[0]) == 1_000
    forget_refit(tmp_path, "m", adapter=False)
    assert not pairs_path(tmp_path, "m").exists()
    assert grown_path(tmp_path, "m").exists()
    forget_refit(tmp_path, "m", adapter=True)
    assert not grown_path(tmp_path, "m").exists()


async def test_what_cannot_be_fitted_again_is_said_once_and_stops_nothing(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "adapter").mkdir()
    await write_old_vectors(scene, range(300))
    scene = refitting_scene(scene, tmp_path, 8_000)
    assert scene.samples is not None
    with caplog.at_level(logging.WARNING, "crossfade.migration.refit"):
        async with scene.led():
            await scene.until(lambda record: record.state is State.SYNCED)
            while not caplog.records:
                await asyncio.sleep(0.1)
            await asyncio.sleep(2.5)  # it looks every second
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1
    assert "the adapter is not fitted again on" in said[0]
    assert "card.json is missing" in said[0]
    assert (await scene.now()).refitted == 0
    assert not grown_path(scene.samples, scene.id).exists()


async def test_vectors_that_clients_sent_teach_nothing(scene: Scene, tmp_path: Path) -> None:
    """Their old vectors are what the adapter made of them."""
    fitted(tmp_path / "adapter", 5_000)
    await write_old_vectors(scene, range(300))
    scene = refitting_scene(scene, tmp_path, 8_000)
    assert scene.samples is not None
    async with scene.led():
        await scene.until(lambda record: record.state is State.SYNCED)
        sent = np.random.default_rng(1).normal(size=DIM).astype(np.float32)
        made = old_of(encode_one("text 7", "passage"))  # what a proxy would have mapped it to
        point = models.PointStruct(id=id_of(7), vector=made.tolist(), payload={"text": "text 7"})
        name = scene.record.spec.collection
        natives = {id_of(7): Native(made, sent)}
        await scene.worker.write([id_of(7)], lambda: scene.client.upsert(name, [point], wait=True), natives)
        await scene.until_quiet()
        target, _ = await scene.client.scroll(scene.record.spec.target, limit=1_000, with_vectors=True)
        stored = next(np.array(point.vector) for point in target if point.id == id_of(7))
        np.testing.assert_allclose(stored, sent / np.linalg.norm(sent), atol=1e-5)
        gone: list[Any] = [id_of(at) for at in range(100, 250)]  # so many that what is kept is written again
        await scene.worker.write(gone, lambda: scene.client.delete(name, models.PointIdsList(points=gone), wait=True))
        await scene.until_quiet()
        record = await scene.now()
    assert record.refitted == 0
    kept = read_sample(pairs_path(scene.samples, scene.id))
    assert kept is not None
    assert len(kept[0]) < 300
    assert float(np.abs(kept[0] - sent).sum(axis=1).min()) > 1
