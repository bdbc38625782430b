"""One migration under writers on hot keys, its controller killed again and again at seeded moments."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.runner import LEASE
from crossfade.proxy.migration.verbs import Say, Verbs
from tests.proxy.migration.scenery import Differences, Scene, find_differences, id_of, set_up, write_at_random

ROOT = Path(__file__).parents[3]


@dataclass
class Outcome:
    """What a run has come to: where the kills fell, how many writes there were, and how the content ended."""

    kills: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    failed_writes: int = 0
    encoded: int = 0
    differences: Differences = field(default_factory=lambda: Differences([], [], []))


async def run_chaos(
    grpc_port: int,
    rest_port: int,
    folder: Path,
    *,
    kills: int,
    seed: int,
    points: int = 300,
    writers: int = 4,
    url: str | None = None,
    prepare: Callable[[Scene], Awaitable[object]] | None = None,
) -> Outcome:
    """Kill the controller `kills` times, at moments drawn from `seed`, and compare everything at the end.

    `prepare` is done before the controller is started the first time.
    """
    outcome, chance = Outcome(), random.Random(seed)
    url, seen = url or f"sqlite:///{folder / 'm.db'}", folder / "seen"
    seen.write_text("0")
    async with set_up(grpc_port, rest_port, url, points) as scene, _workers(scene, seen, outcome, seed, writers):
        if prepare is not None:
            await prepare(scene)
        child = await _start(url, grpc_port, rest_port, seen)
        try:
            for _ in range(kills):
                await _until_leading(scene, child)
                await asyncio.sleep(chance.uniform(0.0, 1.2))
                outcome.kills[(await scene.now()).state] += 1
                os.kill(child.pid, signal.SIGKILL)
                await child.wait()
                await _perhaps_move(scene, chance)
                child = await _start(url, grpc_port, rest_port, seen)
            record = await scene.until(lambda one: one.checkpoint.done and one.state is not State.BACKFILLING, 300)
            outcome.encoded = record.tally.encoded
            scene.worker.stopping = True
            await asyncio.sleep(1.5)  # writes whose end is unknown settle
            await scene.until_quiet(300)
            outcome.differences = await find_differences(scene.client, scene.record.spec)
        finally:
            if child.returncode is None:
                os.kill(child.pid, signal.SIGKILL)
            await child.wait()
    return outcome


async def _start(url: str, grpc_port: int, rest_port: int, seen: Path) -> Process:
    command = [sys.executable, "-m", "tests.proxy.migration.controller_child", url, str(grpc_port), str(rest_port)]
    return await asyncio.create_subprocess_exec(*command, str(seen), cwd=ROOT)


async def _until_leading(scene: Scene, child: Process) -> None:
    """A child that has only just been started would be killed before it did anything."""
    for _ in range(1200):
        leader = await scene.store.leader(LEASE)
        if leader is not None and leader.holder.endswith(f":{child.pid}"):
            return
        assert child.returncode is None, "the controller ended by itself"
        await asyncio.sleep(0.05)
    raise AssertionError("the controller does not come to lead")


async def _perhaps_move(scene: Scene, chance: random.Random) -> None:
    """Take the operator's part, so that kills fall into the later states as well."""
    verbs, say = Verbs(scene.store, scene.journal), Say(scene.record.spec.collection, "chaos")
    state = (await scene.now()).state
    if state in (State.SYNCED, State.CANARY) and chance.random() < 0.5:
        await verbs.switch(say, chance.choice([10, 50, 100]), force=True)
    elif state is State.SWITCHED and chance.random() < 0.3:
        await verbs.reverse(say)
    elif state in (State.SYNCED, State.SWITCHED) and chance.random() < 0.2:
        await scene.journal.close(await scene.journal.mark_all(scene.id, "chaos"))


@asynccontextmanager
async def _workers(scene: Scene, seen: Path, outcome: Outcome, seed: int, writers: int) -> AsyncIterator[None]:
    keys = [id_of(at) for at in range(14)] + [f"00000000-0000-0000-0000-{at:012}" for at in range(6)]

    async def keep_writing(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        while not scene.worker.stopping:
            await write_at_random(scene.worker, chance, keys)
            outcome.writes += 1
            await asyncio.sleep(chance.uniform(0, 0.3))  # often enough to fall into every batch of the controller's

    async def tell() -> None:
        while True:
            fresh = seen.with_suffix(".new")
            fresh.write_text(str(scene.worker.seen))
            fresh.replace(seen)
            await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    beside = [loop.create_task(tell()), loop.create_task(scene.worker.follow())]
    writing = [loop.create_task(keep_writing(number)) for number in range(writers)]
    try:
        yield
    finally:
        scene.worker.stopping = True
        ended = await asyncio.gather(*writing, return_exceptions=True)
        outcome.failed_writes = sum(isinstance(one, BaseException) for one in ended)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
