"""The engine ray on a local Ray: the same outcome under writers, also when its actors are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.backends.index import IndexRefusedError
from crossfade.proxy.config_migrate import Ray
from crossfade.proxy.migration.conduct import Bench, Tools
from crossfade.proxy.migration.errors import BadPlan
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Migration
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.store import Lease
from tests.proxy.migration.ray_scene import open_mover
from tests.proxy.migration.scenery import Scene, find_differences, id_of, set_up, write_at_random

ray = pytest.importorskip("ray", reason="needs the extra ray")

from crossfade.proxy.migration.ray_mover import RayMover, RayMovers  # noqa: E402 # needs ray

SETTINGS = Ray(actors=2, cpus=0.5)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
async def scene(qdrant: QdrantServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A started migration of 600 points that runs on Ray."""
    async with set_up(qdrant.grpc_port, qdrant.rest_port, f"sqlite:///{tmp_path / 'm.db'}", 600) as made:
        pace = made.record.pace.model_copy(update={"engine": "ray", "workers": 4})
        await made.change(pace=pace)
        yield made


@asynccontextmanager
async def led(scene: Scene, qdrant: QdrantServer, delay: float = 0.0) -> AsyncIterator[RayMovers]:
    """A controller whose pages are moved by actors."""
    spec = scene.record.spec
    movers = RayMovers(SETTINGS, spec.collection, partial(open_mover, qdrant.grpc_port, qdrant.rest_port, spec, delay))

    @asynccontextmanager
    async def open_bench(_: Migration) -> AsyncIterator[Bench]:
        yield Bench(scene.index, scene.encoder, movers)

    tools: Tools = replace(scene.tools(), open_bench=open_bench)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(one) for one in (Controller(tools).run(), scene.worker.follow())]
    try:
        yield movers
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        movers.close()


async def test_pages_moved_by_actors_under_writers_and_kills_end_in_the_same_content(
    scene: Scene, qdrant: QdrantServer
) -> None:
    keys = [id_of(at) for at in range(40)]
    stop = asyncio.Event()

    async def keep_writing(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            await write_at_random(scene.worker, chance, keys)
            await asyncio.sleep(0.02)

    async with led(scene, qdrant, delay=0.3) as movers:
        writers = [asyncio.ensure_future(keep_writing(seed)) for seed in range(3)]
        await scene.until(lambda one: one.checkpoint.points > 0)
        pids = await (await movers()).pids()
        assert len(set(pids)) == 2
        os.kill(pids[0], signal.SIGKILL)
        await scene.until(lambda one: one.state is State.SYNCED, 120)
        stop.set()
        await asyncio.gather(*writers)
        await scene.until_quiet()
        assert (await find_differences(scene.client, scene.record.spec)).none
        # The pages were encoded elsewhere, only what writes have touched was here.
        assert not {f"text {at}" for at in range(40, 600)} & set(scene.encoder.texts)


async def test_nothing_is_written_once_the_lease_has_ended(scene: Scene, qdrant: QdrantServer) -> None:
    spec = scene.record.spec
    await scene.index.create_like(spec.collection, spec.target, {"": spec.dim})
    mover = RayMover(SETTINGS, spec.collection, partial(open_mover, qdrant.grpc_port, qdrant.rest_port, spec, 0.5))
    over = Lease("controller", "me", 1, time.time() + 1.2)  # less than reading, encoding and the margin take
    with pytest.raises(IndexRefusedError, match="reading and encoding 2 points took too long") as caught:
        await mover.move([id_of(1), id_of(2)], {}, lambda: over)
    assert caught.value.retryable
    assert await scene.index.count(spec.target) == 0
    held = Lease("controller", "me", 1, time.time() + 60)
    done = await mover.move([id_of(3), id_of(4), 77_777], {}, lambda: held)
    assert (list(done.signed), done.gone, done.encoded) == ([id_of(3), id_of(4)], [77_777], 2)
    assert await scene.index.count(spec.target) == 2
    mover.close()


async def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(BadPlan, match="'docs' cannot be migrated: Ray at auto cannot be used: Could not find"):
        RayMover(Ray(address="auto"), "docs", partial(open_mover, 1, 1, None))  # type: ignore[arg-type] # never opened
