"""A killed controller is followed at once on one machine, and a living one never is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.proxy.migration.errors import MigrationStorageError
from crossfade.proxy.migration.presence import Presence, presence_of
from crossfade.proxy.migration.runner import LEASE, Controller
from tests.proxy.migration.scenery import Scene, set_up

_HOLDER = """
import sys, time
from pathlib import Path
from crossfade.proxy.migration.presence import Presence

print(Presence(Path(sys.argv[1])).take(), flush=True)
time.sleep(600)
"""


def test_one_of_two_has_it_until_it_leaves(tmp_path: Path) -> None:
    first, second = Presence(tmp_path / "lock"), Presence(tmp_path / "lock")
    assert first.take()
    assert first.take()
    assert not second.take()
    first.leave()
    assert second.take()


async def test_a_killed_process_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"True\n"
    waiting = Presence(path)
    assert not waiting.take()
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    assert waiting.take()
    waiting.leave()


def test_only_a_store_on_this_machine_proves_anything(tmp_path: Path) -> None:
    assert presence_of(f"sqlite:///{tmp_path / 'store.sqlite'}").path == tmp_path / "store.sqlite.lock"
    elsewhere = presence_of("postgresql+psycopg://host/name")
    assert elsewhere.take()
    assert not elsewhere.proves
    with pytest.raises(MigrationStorageError, match=r"absent/store\.sqlite\.lock cannot be used: No such file"):
        presence_of(f"sqlite:///{tmp_path}/absent/store.sqlite").take()


async def test_the_lease_of_a_controller_that_is_gone_need_not_expire(scene: Scene) -> None:
    assert await scene.store.acquire(LEASE, "killed", 3600) is not None  # its process, and so its lock, is gone
    async with scene.led():
        deadline = time.monotonic() + 30
        while (leader := await scene.store.leader(LEASE)) is None or leader.holder == "killed":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert leader.token == 2


async def test_a_living_controller_keeps_others_out_even_without_a_lease(qdrant: QdrantServer, tmp_path: Path) -> None:
    async with set_up(qdrant.grpc_port, qdrant.rest_port, f"sqlite:///{tmp_path / 'm.db'}", 10) as scene:
        alive = presence_of(scene.store.url)
        assert alive.take()
        task = asyncio.ensure_future(Controller(scene.tools(), "other").run())
        await asyncio.sleep(0.5)
        assert await scene.store.leader(LEASE) is None
        alive.leave()
        await scene.until(lambda one: one.made_target)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
