"""The engine process: the same outcome under writers, also when the process is killed; it ends with its controller."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.backends.index import IndexRefusedError
from crossfade.proxy.errors import EncoderFailed
from crossfade.proxy.migration.conduct import Bench, Tools
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.process_mover import ProcessMover
from crossfade.proxy.migration.record import Migration
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.store import Lease
from tests.proxy.migration.ray_scene import open_mover
from tests.proxy.migration.scenery import Scene, find_differences, id_of, set_up, write_at_random


@pytest.fixture
async def scene(qdrant: QdrantServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A started migration of 600 points that runs in a process of its own."""
    async with set_up(qdrant.grpc_port, qdrant.rest_port, f"sqlite:///{tmp_path / 'm.db'}", 600) as made:
        await made.change(pace=made.record.pace.model_copy(update={"engine": "process", "workers": 4}))
        yield made


@asynccontextmanager
async def led(scene: Scene, mover: ProcessMover) -> AsyncIterator[None]:
    """A controller whose pages are moved by another process."""

    @asynccontextmanager
    async def open_bench(_: Migration) -> AsyncIterator[Bench]:
        yield Bench(scene.index, scene.encoder, process=mover)

    tools: Tools = replace(scene.tools(), open_bench=open_bench)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(one) for one in (Controller(tools).run(), scene.worker.follow())]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        mover.close()


def mover_of(scene: Scene, qdrant: QdrantServer, delay: float) -> ProcessMover:
    return ProcessMover(partial(open_mover, qdrant.grpc_port, qdrant.rest_port, scene.record.spec, delay))


async def test_pages_moved_under_writers_and_a_kill_end_in_the_same_content(scene: Scene, qdrant: QdrantServer) -> None:
    keys = [id_of(at) for at in range(40)]
    stop = asyncio.Event()

    async def keep_writing(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            await write_at_random(scene.worker, chance, keys)
            await asyncio.sleep(0.02)

    mover = mover_of(scene, qdrant, 0.3)
    async with led(scene, mover):
        writers = [asyncio.ensure_future(keep_writing(seed)) for seed in range(3)]
        await scene.until(lambda one: one.checkpoint.points > 0)
        first = mover.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await scene.until(lambda one: one.state is State.SYNCED, 120)
        assert mover.pid not in (first, None)
        stop.set()
        await asyncio.gather(*writers)
        await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none
        # The pages were encoded elsewhere, only what writes have touched was here.
        assert not {f"text {at}" for at in range(40, 600)} & set(scene.encoder.texts)


async def test_nothing_is_written_once_the_lease_has_ended(scene: Scene, qdrant: QdrantServer) -> None:
    spec = scene.record.spec
    await scene.index.create_like(spec.collection, spec.target, {"": spec.dim})
    mover = mover_of(scene, qdrant, 0.5)
    held = Lease("controller", "me", 1, time.time() + 60)
    await mover.move([], {}, lambda: held)  # it has started
    over = Lease("controller", "me", 1, time.time() + 1.2)  # less than reading, encoding and the margin take
    with pytest.raises(IndexRefusedError, match="reading and encoding 2 points took too long") as caught:
        await mover.move([id_of(1), id_of(2)], {}, lambda: over)
    assert caught.value.retryable
    assert await scene.index.count(spec.target) == 0
    held = Lease("controller", "me", 1, time.time() + 60)
    done = await mover.move([id_of(3), id_of(4), 77_777], {}, lambda: held)
    assert (list(done.signed), done.gone, done.encoded) == ([id_of(3), id_of(4)], [77_777], 2)
    assert [one.shape for one in done.pairs[id_of(3)]] == [(spec.dim,), (16,)]
    assert await scene.index.count(spec.target) == 2
    mover.close()


async def test_a_page_that_is_cancelled_is_waited_for(scene: Scene, qdrant: QdrantServer) -> None:
    spec = scene.record.spec
    await scene.index.create_like(spec.collection, spec.target, {"": spec.dim})
    mover = mover_of(scene, qdrant, 0.5)
    held = Lease("controller", "me", 1, time.time() + 60)
    await mover.move([], {}, lambda: held)
    page = asyncio.ensure_future(mover.move([id_of(1)], {}, lambda: held))
    await asyncio.sleep(0.1)
    page.cancel()
    with pytest.raises(asyncio.CancelledError):
        await page
    assert await scene.index.count(spec.target) == 1
    mover.close()


async def test_why_it_does_not_open_is_told() -> None:
    mover = ProcessMover(partial(open_mover, "no port", 1, None))  # type: ignore[arg-type] # what is wrong with it
    held = Lease("controller", "me", 1, time.time() + 60)
    with pytest.raises(EncoderFailed, match="a process of its own"):
        await mover.move([], {}, lambda: held)
    mover.close()
