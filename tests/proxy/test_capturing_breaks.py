"""What becomes of writes when the journal cannot be used, and when a worker is killed in the middle of one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from crossfade.proxy.journals import is_alive
from crossfade.proxy.migration.board import SETTLES
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.missed import find_missed
from tests.proxy.capture_stage import ALL, Stage, open_stage, wait_closed
from tests.proxy.recording import Recorders, RestCall
from tests.proxy.serving import wait_serving, wait_until


def address_of(recorders: Recorders) -> str:
    return f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'


@dataclass(frozen=True)
class Broken:
    """A stage whose state is on a small file system of its own, unless none can be mounted here."""

    stage: Stage
    writes: str
    disk: Path
    unmounted: str  # why


@pytest.fixture(scope="module", params=["closed", "open"])
def broken(
    request: pytest.FixtureRequest, recorders: Recorders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    directory = tmp_path_factory.mktemp("breaks")
    disk = directory / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    try:
        with open_stage(directory, address_of(recorders), request.param, disk) as stage:
            yield Broken(stage, request.param, disk, made.stderr.decode().strip())
    finally:
        if not made.returncode:
            subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def mounted(broken: Broken) -> Broken:
    if broken.unmounted:
        pytest.skip(f"a file system of its own cannot be mounted here: {broken.unmounted}")
    return broken


def migration_of(stage: Stage) -> str:
    assert stage.record is not None  # every stage has one
    return stage.record.id


def delete(stage: Stage, *points: int) -> httpx.Response:
    return httpx.post(f"{stage.serving.rest}/collections/docs/points/delete", json={"points": points}, timeout=60)


def check_unusable(broken: Broken, recorded: Recorders, reason: str) -> None:
    """Closed: refused, not sent, explained. Open: sent, and remembered. Reads do not depend on it."""
    stage = broken.stage
    recorded.reset()
    logged = len(stage.serving.written())
    answer = delete(stage, 1)
    if broken.writes == "closed":
        assert answer.status_code == 503
        error = answer.json()["status"]["error"]
        assert "collection 'docs' is being migrated, and the write was not sent" in error
        assert str(stage.journal) in error
        assert reason in error
        assert not recorded.rest.calls
        assert find_missed(stage.config, stage.run_dir) == []
    else:
        assert answer.status_code == 200
        assert len(recorded.rest.calls) == 1
        remembered = find_missed(stage.config, stage.run_dir) == [migration_of(stage)]
        # The supervisor may have had room for one mark, or a file from before the disk was read-only: then it says so.
        assert remembered or "everything is walked again" in stage.serving.written()[logged:]
    query = {"query": [0.1] * 24, "limit": 3}
    assert httpx.post(f"{stage.serving.rest}/collections/docs/points/query", json=query).status_code == 200


def check_usable_again(broken: Broken, point: int) -> None:
    """Writes are journalled again, and what had passed is made up for."""
    stage = broken.stage

    def is_marked() -> bool:
        if delete(stage, point).status_code != 200:
            return False
        time.sleep(0.2)  # the end of a write waits a moment for the next mark, to share its commit
        return point in stage.marked()[1]

    wait_until(is_marked, 15, "writes are marked")
    if broken.writes == "open":
        wait_until(lambda: find_missed(stage.config, stage.run_dir) == [], 10, "what has passed is taken up")
        wait_until(lambda: ALL in frozenset().union(*stage.marked()), 10, "everything is marked")


def test_a_journal_that_is_gone_stops_writes_or_is_remembered_until_it_is_back(
    broken: Broken, recorded: Recorders
) -> None:
    folder = broken.stage.journal.parent
    folder.rename(broken.disk / "away")
    folder.write_text("no folder")
    try:
        check_unusable(broken, recorded, "unable to open database file")
    finally:
        folder.unlink()
        (broken.disk / "away").rename(folder)
    check_usable_again(broken, 2)


def test_a_full_disk_stops_writes_or_is_remembered_until_there_is_room(mounted: Broken, recorded: Recorders) -> None:
    stage = mounted.stage
    fill(mounted.disk / "filler")
    passes = mounted.writes == "open"
    wait_until(lambda: delete(stage, *range(2000)).status_code != 200 or passes, 20, "no room is left")
    check_unusable(mounted, recorded, "disk is full")
    (mounted.disk / "filler").unlink()
    check_usable_again(mounted, 3)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


def test_a_read_only_disk_stops_writes_or_is_remembered_elsewhere(mounted: Broken, recorded: Recorders) -> None:
    (pid,) = mounted.stage.serving.worker_pids()
    os.kill(pid, signal.SIGKILL)  # the next one opens its journal where nothing can be written
    wait_until(lambda: mounted.stage.serving.worker_pids() != [pid], 30, "another worker is there")
    subprocess.run(["mount", "--bind", mounted.disk, mounted.disk], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", mounted.disk], check=True)
    try:
        wait_serving(mounted.stage.serving, "it serves")
        check_unusable(mounted, recorded, "readonly")
    finally:
        subprocess.run(["umount", "-l", mounted.disk], check=True)
    check_usable_again(mounted, 4)


def open_writers(stage: Stage) -> list[str]:
    journal = Journal(f"sqlite:///{stage.journal}")
    try:
        return list(asyncio.run(journal.open_writers()))
    finally:
        journal.shut()


def kill_amid_write(stage: Stage, called: threading.Event | None = None) -> None:
    """Kill the worker that has a write under way, once it was called."""

    def write() -> None:
        with pytest.raises(httpx.HTTPError):
            delete(stage, 5, 6)

    sent = threading.Thread(target=write)
    sent.start()
    wait_until(lambda: stage.marked()[0] == {5, 6}, 10, "the write is journalled")
    assert called is None or called.wait(10), "the database has the write"
    (writer,) = open_writers(stage)
    assert is_alive(writer)
    os.kill(int(writer.rsplit(":", 2)[1]), signal.SIGKILL)
    sent.join(10)
    assert not sent.is_alive()
    wait_until(lambda: is_alive(writer) is False, 10, "the worker has ended")


def check_settled(stage: Stage) -> None:
    """Wait until the supervisor has said when the dead writer's last request will have arrived, or never will."""
    wait_closed(stage, [5, 6])
    assert open_writers(stage) == []
    (settles,) = stage.settles()
    assert 0 < settles - time.time() <= SETTLES


def test_a_worker_killed_before_it_sends_leaves_marks_that_are_closed(recorders: Recorders, tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections, reads nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        upstream = f'grpc: "{recorders.grpc.address}", rest: "http://127.0.0.1:{silent.getsockname()[1]}"'
        with open_stage(tmp_path, upstream) as stage:
            kill_amid_write(stage)
            check_settled(stage)


def test_a_worker_killed_while_the_database_works_leaves_marks_that_are_closed(
    recorded: Recorders, tmp_path: Path
) -> None:
    called, go_on = threading.Event(), threading.Event()

    with open_stage(tmp_path, address_of(recorded), workers=2) as stage:

        def hang(call: RestCall) -> Response:
            called.set()
            go_on.wait(20)
            return Response(b"{}", media_type="application/json")

        recorded.rest.answer = hang
        try:
            kill_amid_write(stage, called)
            check_settled(stage)
        finally:
            go_on.set()
